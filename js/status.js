// @ts-check
// The line on a node that says what came of its last run, and the list of the blocks that were hit.

import { colour, holdPresses, html, theme } from "./theme.js";
import { joined, lineOf, say } from "./words.js";

const LIST = { width: 340, gap: 4 }; // as in the style sheet

export class Status {
    constructor() {
        this.line = html("span", { role: "status" }, say("notRun"));
        this.list = html("div", { class: "list", popover: "auto" }); // above all else, at the size of the page
        this.more = html("button", { type: "button", hidden: "" }, say("blocks"));
        Object.assign(this.more, { popoverTargetElement: this.list });
        this.element = html("div", { class: "circulation status" }, this.line, this.more, this.list);
        holdPresses(this.more);
        holdPresses(this.list);
        this.list.addEventListener("beforetoggle", () => this.place());
        this.element.addEventListener("keydown", (event) => {
            // Enter and Space press the button, Escape closes the list; ComfyUI has other uses for them
            if (event.target === this.more || this.list.matches(":popover-open")) event.stopPropagation();
        });
        this.draw();
    }

    show({ text, sentences, blocks, cached }) {
        const line = lineOf({ text, sentences });
        const last = cached && line ? say("lastRun", { line }) : line;
        this.line.textContent = this.element.title = cached ? joined(say("cached"), last) : last;
        this.more.hidden = !blocks;
        this.list.replaceChildren(...(blocks ?? "").split(", ").map((block) => html("div", {}, block)));
    }

    draw() {
        colour(this.element, theme());
    }

    /** The list goes below the button, or above it where there is more room. */
    place() {
        const { left, top, bottom } = this.more.getBoundingClientRect();
        const below = innerHeight - bottom > top;
        Object.assign(this.list.style, {
            left: `${Math.max(0, Math.min(left, innerWidth - LIST.width))}px`,
            top: below ? `${bottom + LIST.gap}px` : "auto",
            bottom: below ? "auto" : `${innerHeight - top + LIST.gap}px`,
            maxHeight: `${(below ? innerHeight - bottom : top) - 3 * LIST.gap}px`,
        });
    }
}
