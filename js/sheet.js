// @ts-check
// The cells of a comparison sheet. Over a cell the pointer moves an edge between the baseline's image and its own; a click shows both large.
//
// Data is {labels: [of each row], baseline: its row, columns, cells: [[{filename, subfolder, type}, or null where there is none (yet)]]}.

import { api } from "../../scripts/api.js";
import { colour, holdPresses, html, theme } from "./theme.js";
import { say } from "./words.js";

const STEP = 2; // percent that an arrow key moves the slider
const PAGE = 10;

/** Where in an element's width a place on the screen is, at whatever zoom. */
function percent(x, element) {
    const { left, width } = element.getBoundingClientRect();
    return ((x - left) / width) * 100;
}

export class Sheet {
    constructor() {
        this.data = null;
        this.buttons = []; // row by row; null where there is no image
        this.chosen = null; // the index of the cell that is compared
        this.back = html("button", { type: "button" }, say("back"));
        this.back.addEventListener("click", () => this.leave());
        this.note = html("span", { class: "note", role: "status" });
        this.rows = html("div", { class: "rows" });
        this.slider = html("div", { class: "plot slider", role: "slider", tabindex: "0", "aria-valuemin": 0, "aria-valuemax": 100 });
        this.line = html("span", { class: "line", role: "status" });
        const head = html("div", { class: "head" }, this.back, this.note);
        this.element = html("div", { class: "circulation sheet" }, head, this.rows, this.slider, this.line);
        holdPresses(this.element);
        this.rows.addEventListener("keydown", (event) => this.walk(event));
        this.slider.addEventListener("pointerdown", (event) => this.begin(event));
        this.slider.addEventListener("pointermove", (event) => this.slider.hasPointerCapture(event.pointerId) && this.follow(event));
        this.element.addEventListener("keydown", (event) => this.chosen !== null && this.key(event));
        this.draw();
        this.say("");
        this.leave();
    }

    /** Cells that are as before stay, whatever is done with them: those of a running grid come one by one. `line` is said below them. */
    show(data, line) {
        const before = this.data;
        const same = JSON.stringify(data) === JSON.stringify(before); // front ends tell it again when one comes back to a workflow
        if (line !== undefined || !same) this.say(line ?? "");
        if (same) return;
        const [rows, columns] = [data.cells.length, data.columns];
        this.data = data;
        if (rows !== before?.cells.length || columns !== before.columns) this.lay(rows, columns);
        data.cells.forEach((files, row) => {
            this.rows.children[row].firstChild.textContent = this.label(row);
            for (let column = 0; column < columns; column++) this.put(files[column], row, column);
        });
        if (this.chosen === null) this.hint();
        if (!this.buttons.some((button) => button?.tabIndex === 0)) this.buttons.find((button) => button)?.setAttribute("tabindex", "0");
    }

    /** Below the cells; nothing where there is nothing to say. */
    say(text) {
        this.line.textContent = this.line.title = text;
        this.line.hidden = !text;
    }

    /** Rows without images. */
    lay(rows, columns) {
        this.leave();
        this.buttons = Array(rows * columns).fill(null);
        this.rows.style.setProperty("--columns", columns);
        const cells = () => html("div", { class: "cells" }, ...Array.from({ length: columns }, () => html("span", { "data-is": "" })));
        this.rows.replaceChildren(...Array.from({ length: rows }, () => html("div", { class: "row" }, html("span"), cells())));
    }

    draw() {
        colour(this.element, theme());
    }

    label(row) {
        const label = this.data.labels[row];
        return row === this.data.baseline ? say("baseline", { label }) : label;
    }

    name(row, column) {
        return say("cell", { row: this.label(row), column: column + 1 });
    }

    put(file, row, column) {
        const name = this.name(row, column);
        const is = file ? JSON.stringify([name, file]) : "";
        const before = this.rows.children[row].lastChild.children[column];
        if (before.dataset.is === is) return;
        const { baseline, columns } = this.data;
        const at = row * columns + column;
        if (this.chosen !== null && [this.chosen, baseline * columns + (this.chosen % columns)].includes(at)) this.leave();
        this.buttons[at] = file ? this.cell(file, name, row, column) : null;
        const cell = this.buttons[at] ?? html("span");
        cell.dataset.is = is;
        before.replaceWith(cell);
    }

    cell(file, name, row, column) {
        const button = html("button", { type: "button", tabindex: "-1", title: name, "aria-label": name }, this.picture(file));
        button.addEventListener("click", () => this.compare(row * this.data.columns + column));
        button.addEventListener("pointermove", (event) => this.peek(event, button, row, column));
        button.addEventListener("pointerleave", () => this.unpeek(button));
        return button;
    }

    picture(file) {
        const image = html("img", { alt: "", draggable: "false", loading: "lazy", src: api.apiURL(`/view?${new URLSearchParams(file)}`) });
        image.addEventListener("error", () => this.note.replaceChildren(say("gone")));
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

    /** Lays the baseline's image below another, and an edge over both. */
    cover(element, row, column) {
        const { baseline, cells } = this.data;
        const under = cells[baseline][column];
        element.querySelector("img").classList.add("over");
        if (under) element.prepend(this.picture(under));
        element.append(html("div", { class: "edge" }));
        this.note.replaceChildren(`${under ? this.label(baseline) : say("noImage")} | ${this.name(row, column)}`);
    }

    /** The pointer over a cell is its edge. */
    peek({ pointerType, buttons, clientX }, button, row, column) {
        if (pointerType === "touch" || buttons || row === this.data.baseline || !this.data.cells[this.data.baseline][column]) return;
        if (!button.querySelector(".edge")) this.cover(button, row, column);
        button.style.setProperty("--edge", `${percent(clientX, button)}%`);
    }

    unpeek(button) {
        const over = button.querySelector(".over");
        if (!over) return;
        over.classList.remove("over");
        button.replaceChildren(over);
        if (this.chosen === null) this.hint();
    }

    compare(at) {
        const { cells, columns } = this.data;
        const [row, column] = [Math.floor(at / columns), at % columns];
        this.unpeek(this.buttons[at]);
        this.chosen = at;
        for (const button of this.buttons) button?.setAttribute("tabindex", button === this.buttons[at] ? "0" : "-1");
        this.slider.setAttribute("aria-label", say("slider", { cell: this.buttons[at].title }));
        this.slider.replaceChildren(this.picture(cells[row][column]));
        this.cover(this.slider, row, column);
        this.slide(50);
        this.turn();
        this.slider.focus({ preventScroll: true });
    }

    leave() {
        const from = this.element.contains(document.activeElement) ? this.buttons[this.chosen] : null;
        this.chosen = null;
        this.hint();
        this.slider.replaceChildren();
        this.turn();
        from?.focus({ preventScroll: true });
    }

    hint() {
        this.note.replaceChildren(say(this.data ? "point" : "nothingCompared"));
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
        this.slider.setAttribute("aria-valuetext", say("share", { percent: Math.round(this.percent) }));
    }

    begin(event) {
        if (event.button !== 0) return;
        this.slider.setPointerCapture(event.pointerId);
        this.follow(event);
    }

    follow(event) {
        this.slide(percent(event.clientX, this.slider));
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
