/* What is shown when a part of the page cannot be drawn: its text, and a way back.

Always true: what fails in one turn leaves the others, and the field for the next question, alone. */

import { Component, type ReactNode } from "react";

interface Props {
  /** What could not be drawn, as text. */
  text: string;
  what: string;
  children: ReactNode;
}

export class Boundary extends Component<Props, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override render(): ReactNode {
    if (!this.state.failed) return this.props.children;
    const { text, what } = this.props;
    return (
      <div className="broken" role="alert" translate="no">
        <p>{what} cannot be drawn.{text ? " This is its text:" : ""}</p>
        {text && <pre tabIndex={0}>{text}</pre>}
        <button type="button" onClick={() => this.setState({ failed: false })}>
          Draw it again
        </button>
      </div>
    );
  }
}

/** Translators and other extensions move the page's own nodes. React finds them gone when it takes
 * them out, and would leave a white page. */
export function tolerateMovedNodes(): void {
  const { removeChild, insertBefore } = Node.prototype;
  Node.prototype.removeChild = function <T extends Node>(this: Node, child: T): T {
    return child.parentNode === this ? (removeChild.call(this, child) as T) : child;
  };
  Node.prototype.insertBefore = function <T extends Node>(this: Node, node: T, before: Node | null): T {
    const place = before && before.parentNode !== this ? null : before;
    return insertBefore.call(this, node, place) as T;
  };
}
