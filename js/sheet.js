// @ts-check
// The cells of a comparison sheet, and for one of them a slider between the baseline's image and its own.
//
// Data is {labels: [of each row], baseline: its row, columns, cells: [[{filename, subfolder, type}, or null where a batch is shorter]]}.

import { api } from "../../scripts/api.js";
import { colour, holdPresses, html, theme } from "./theme.js";

const STEP = 2; // percent that an arrow key moves the slider
const PAGE = 10;

export class Sheet {
    constructor() {
        this.data = null;
        this.buttons = []; // row by row; null where there is no image
        this.chosen = null; // the index of the cell that is compared
        this.back = html("button", { type: "button" }, "Back");
        this.back.addEventListener("click", () => this.leave());
        this.note = html("span", { class: "note", role: "status" });
        this.rows = html("div", { class: "rows" });
        this.slider = html("div", { class: "plot slider", role: "slider", tabindex: "0", "aria-valuemin": 0, "aria-valuemax": 100 });
        this.element = html("div", { class: "circulation sheet" }, html("div", { class: "head" }, this.back, this.note), this.rows, this.slider);
        holdPresses(this.element);
        this.rows.addEventListener("keydown", (event) => this.walk(event));
        this.slider.addEventListener("pointerdown", (event) => this.begin(event));
        this.slider.addEventListener("pointermove", (event) => this.slider.hasPointerCapture(event.pointerId) && this.follow(event));
        this.element.addEventListener("keydown", (event) => this.chosen !== null && this.key(event));
        this.draw();
        this.leave();
    }

    show(data) {
        if (JSON.stringify(data) === JSON.stringify(this.data)) return; // front ends tell it again when one comes back to a workflow
        this.data = data;
        const rows = data.cells.map((files, row) => {
            const cells = Array.from({ length: data.columns }, (_, column) => this.cell(files[column], row, column));
            return html("div", { class: "row" }, html("span", {}, this.label(row)), html("div", { class: "cells" }, ...cells));
        });
        this.buttons = rows.flatMap((row) => [...row.lastChild.children].map((cell) => (cell.localName === "button" ? cell : null)));
        this.rows.style.setProperty("--columns", data.columns);
        this.rows.replaceChildren(...rows);
        this.leave();
        this.buttons.find((button) => button)?.setAttribute("tabindex", "0");
    }

    draw() {
        colour(this.element, theme());
    }

    label(row) {
        return this.data.labels[row] + (row === this.data.baseline ? " (baseline)" : "");
    }

    cell(file, row, column) {
        if (!file) return html("span");
        const name = `${this.label(row)}, column ${column + 1}`;
        const button = html("button", { type: "button", tabindex: "-1", title: name, "aria-label": name }, this.picture(file));
        button.addEventListener("click", () => this.compare(row * this.data.columns + column));
        return button;
    }

    picture(file) {
        const image = html("img", { alt: "", draggable: "false", loading: "lazy", src: api.apiURL(`/view?${new URLSearchParams(file)}`) });
        image.addEventListener("error", () => this.note.replaceChildren("Images of this run are gone. Run it again to see them."));
        return image;
    }

    /** Arrow keys go from cell to cell, so that Tab need not stop at each. */
    walk(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        if (event.key === "Enter" || event.key === " ") return event.stopPropagation(); // a click
        const { columns } = this.data;
        const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
        if (!by) return;
        event.preventDefault();
        event.stopPropagation();
        let to = this.buttons.indexOf(event.target) + by;
        while (this.buttons[to] === null) to += by;
        this.buttons[to]?.focus();
    }

    compare(at) {
        const { baseline, cells, columns } = this.data;
        const [row, column] = [Math.floor(at / columns), at % columns];
        const under = cells[baseline][column];
        this.chosen = at;
        for (const button of this.buttons) button?.setAttribute("tabindex", button === this.buttons[at] ? "0" : "-1");
        this.note.replaceChildren(`${under ? this.label(baseline) : "no image"} | ${this.label(row)}, column ${column + 1}`);
        this.slider.setAttribute("aria-label", `${this.buttons[at].title}, over the baseline's. Arrow keys move the edge, Escape leaves.`);
        this.slider.replaceChildren(...(under ? [this.picture(under)] : []), this.picture(cells[row][column]), html("div", { class: "edge" }));
        this.slider.querySelector("img:last-of-type").classList.add("over");
        this.slide(50);
        this.turn();
        this.slider.focus({ preventScroll: true });
    }

    leave() {
        const from = this.buttons[this.chosen];
        this.chosen = null;
        this.note.replaceChildren(this.data ? "Click a cell to compare it with the baseline." : "Nothing compared yet.");
        this.slider.replaceChildren();
        this.turn();
        from?.focus({ preventScroll: true });
    }

    turn() {
        this.rows.hidden = this.chosen !== null;
        this.slider.hidden = this.back.hidden = this.chosen === null;
    }

    /** Left of the edge, at this percentage of the width, is the baseline's image. */
    slide(percent) {
        this.percent = Math.min(Math.max(percent, 0), 100);
        this.slider.style.setProperty("--edge", `${this.percent}%`);
        this.slider.setAttribute("aria-valuenow", String(Math.round(this.percent)));
        this.slider.setAttribute("aria-valuetext", `${Math.round(this.percent)} % baseline`);
    }

    begin(event) {
        if (event.button !== 0) return;
        this.slider.setPointerCapture(event.pointerId);
        this.follow(event);
    }

    follow(event) {
        const box = this.slider.getBoundingClientRect(); // as it is on the screen, at whatever zoom
        this.slide(((event.clientX - box.left) / box.width) * 100);
    }

    key(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const to = {
            ArrowLeft: this.percent - STEP, ArrowDown: this.percent - STEP, ArrowRight: this.percent + STEP, ArrowUp: this.percent + STEP,
            PageDown: this.percent - PAGE, PageUp: this.percent + PAGE, Home: 0, End: 100,
        }[event.key];
        if (to === undefined && event.key !== "Escape") return;
        event.preventDefault();
        event.stopPropagation();
        if (to === undefined) this.leave();
        else this.slide(to);
    }
}
