/* Light, dark, or as the system says. */

import { useEffect, useState, type ReactNode } from "react";
import { Icon } from "./icons.js";

const KEY = "tokenwire.theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" } as const;
type Theme = keyof typeof NEXT;
const ICONS = { auto: "auto", light: "sun", dark: "moon" } as const;

function kept(): Theme {
  try {
    const found = localStorage.getItem(KEY) ?? "";
    return found === "light" || found === "dark" ? found : "auto";
  } catch {
    return "auto";
  }
}

export function ThemeButton(): ReactNode {
  const [theme, setTheme] = useState<Theme>(kept);
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Without storage the choice lives as long as the page.
    }
  }, [theme]);
  return (
    <button
      type="button"
      className="quiet icon"
      aria-label={`Theme: ${theme}`}
      title={`Theme: ${theme}`}
      onClick={() => setTheme(NEXT[theme])}
    >
      <Icon name={ICONS[theme]} />
    </button>
  );
}
