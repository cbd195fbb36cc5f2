/* The chat page. */

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app.js";
import { Boundary, tolerateMovedNodes } from "./boundary.js";
import "./styles.css";

tolerateMovedNodes();
createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Boundary what="The page" text="">
      <App />
    </Boundary>
  </StrictMode>,
);
