// @ts-check
// The schedule painter: a view of the JSON in the node's own text widget, and a brush for it.
//
// Rows are the depth of the model, first blocks at the top; columns are the sampling, its start at the left. A cell is a
// factor on (alpha − 1), from 0 to 2. While a stroke goes on, cells are drawn only; when it ends, the text is written.
// Behind the cells is the heat map of the last run, on the same axes.

import { alongSampling, heatMap } from "./heat.js";
import { colour, holdPresses, html, mix, onceAFrame, opposite, svg, theme } from "./theme.js";
import { say } from "./words.js";

/** @typedef {import("./words.js").Key} Key */

const MOST = { rows: 32, columns: 64, factor: 2 }; // as in nodes/engine/rules/schedule.py
const BRUSHES = [0, 0.5, 1, 1.5, 2]; // a click away; the field beside them takes what lies between
const BRUSH_STEP = 0.25;
const OWN = "circulation:presets"; // where this browser keeps the user's own: {name: grid}
const FRAME = { left: 14, top: 14, right: 2, bottom: 16 }; // the bars at the left and top paint whole rows and columns

// what a preset makes of a cell whose middle lies at a depth and a time, both from 0 to 1
const FILLS = {
    "everywhere 1": () => 1,
    "everywhere 0": () => 0,
    "early half": (depth, time) => (time < 0.5 ? 1 : 0),
    "late half": (depth, time) => (time < 0.5 ? 0 : 1),
    "middle depth": (depth) => (Math.abs(depth - 0.5) < 0.25 ? 1 : 0),
    "ramp down": (depth, time) => round(2 * (1 - time)),
};

// what becomes of the cell [row, column] of a grid
const CHANGES = {
    "mirror in time": (grid, row, column) => grid[row].at(-1 - column),
    "mirror in depth": (grid, row, column) => grid.at(-1 - row)[column],
    invert: (grid, row, column) => round(Math.max(...grid.flat()) - grid[row][column]),
};

export class Painter {
    /**
     * `text()` gives the JSON; `write(text)` keeps a new one, as one step for undo; `linked()` says whether a link sets it.
     * @param {{data(): any, wanted(): boolean, want(value: boolean): void}} run what the last run's chart holds, null where there is none, and whether it is to be seen
     */
    constructor(text, write, linked, run) {
        this.run = run;
        this.text = text;
        this.write = write;
        this.linked = linked;
        this.draw = onceAFrame(() => this.drawNow());
        this.brush = 0; // its strength
        this.cursor = null; // [row, column] under the pointer or the arrow keys
        this.stroke = null; // the value that is being painted
        this.ramp = null; // the grid as it was before a gradient is drawn on it, and where that begins: {grid, from}
        this.brushes = BRUSHES.map((value) => this.button(String(value), () => this.choose(value)));
        for (const button of this.brushes) button.setAttribute("role", "radio");
        this.strength = html("input", { type: "number", min: 0, max: MOST.factor, step: BRUSH_STEP, "aria-label": say("brush"), title: say("brush") });
        this.strength.addEventListener("change", () => this.choose(Number(this.strength.value)));
        this.preset = html("select", { "aria-label": say("fillTheGrid") });
        this.preset.addEventListener("change", () => this.act(this.preset.value));
        this.name = html("input", { type: "text", class: "name", hidden: "", maxlength: 40, placeholder: say("presetName"), "aria-label": say("presetName") });
        this.name.addEventListener("keydown", ({ key }) => {
            if (key === "Enter" && this.name.value.trim()) this.keepPreset(this.name.value.trim());
            if (key === "Enter" || key === "Escape") this.name.hidden = true;
        });
        this.offer();
        this.behind = this.button(say("lastRunBehind"), () => {
            run.want(!run.wanted());
            this.draw();
        });
        this.behind.setAttribute("role", "switch");
        this.behind.title = say("lastRunBehindHelp");
        this.size = ["rows", "columns"].map((/** @type {Key} */ name) => {
            const input = html("input", { type: "number", min: 1, max: MOST[name], "aria-label": say(name), title: say(name) });
            input.addEventListener("change", () => this.resize());
            return input;
        });
        this.note = html("div", { class: "note", role: "status" });
        this.canvas = svg("svg", { tabindex: "0", role: "application", "aria-label": `${say("painter")} ${say("painterKeys")}` });
        this.element = html(
            "div",
            { class: "circulation painter" },
            html(
                "div",
                { class: "head" },
                html("span", { role: "radiogroup", "aria-label": say("brush") }, ...this.brushes),
                this.strength,
                this.preset,
                this.name,
                html("span", {}, this.size[0], " × ", this.size[1]),
                this.behind,
            ),
            html("div", { class: "plot" }, this.canvas),
            this.note,
        );
        holdPresses(this.element);
        this.element.addEventListener("keydown", (event) => event.target === this.canvas || event.stopPropagation());
        this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
        this.canvas.addEventListener("pointermove", (event) => this.move(event));
        this.canvas.addEventListener("pointerup", (event) => this.end(event));
        this.canvas.addEventListener("pointercancel", () => this.end());
        this.canvas.addEventListener("pointerleave", () => this.stroke === null && this.hover(null));
        this.canvas.addEventListener("blur", () => this.hover(null));
        this.canvas.addEventListener("keydown", (event) => this.key(event));
        new ResizeObserver(() => this.draw()).observe(this.canvas);
        this.choose(0);
        this.read();
    }

    /** Takes the grid from the text. A text that is no grid is left alone and said to be none. */
    read() {
        this.grid = parsed(this.text());
        this.draw();
    }

    button(label, action) {
        const button = html("button", { type: "button" }, label);
        button.addEventListener("click", action);
        return button;
    }

    choose(value) {
        this.brush = Math.min(Math.max(Math.round(value / BRUSH_STEP) * BRUSH_STEP || 0, 0), MOST.factor);
        this.strength.value = this.brush;
        this.brushes.forEach((button, at) => button.setAttribute("aria-checked", String(BRUSHES[at] === this.brush)));
    }

    /** The entries of the list: ways to fill and to change the grid, and the user's own. */
    offer() {
        const entry = (value, words) => html("option", { value }, words);
        const named = (names) => names.map((/** @type {Key} */ name) => entry(name, say(name)));
        const own = Object.keys(presets());
        const mine = [...own.map((name) => entry(`own:${name}`, name)), entry("keep", say("keepPreset"))];
        if (own.length) mine.push(...own.map((name) => entry(`drop:${name}`, say("dropPreset", { name }))));
        this.preset.replaceChildren(
            entry("", say("fill")), ...named(Object.keys(FILLS)),
            html("optgroup", { label: say("change") }, ...named(Object.keys(CHANGES))),
            html("optgroup", { label: say("ownPresets") }, ...mine),
        );
    }

    /** Does what an entry of the list says. */
    act(entry) {
        const [kind, ...rest] = entry.split(":");
        const name = rest.join(":");
        if (FILLS[entry]) this.fill(FILLS[entry]);
        else if (CHANGES[entry] && this.ready) this.replace(this.grid.map((row, r) => row.map((_, c) => CHANGES[entry](this.grid, r, c))));
        else if (kind === "own" && !this.linked()) this.replace(presets()[name].map((row) => [...row]));
        else if (kind === "drop") this.keepPreset(name, null);
        else if (kind === "keep" && this.ready) {
            this.name.hidden = false;
            this.name.value = "";
            this.name.focus();
        }
        this.preset.selectedIndex = 0;
    }

    replace(grid) {
        this.grid = grid;
        this.keep();
        this.draw();
    }

    /** Keeps the grid in this browser under a name; null forgets the name. */
    keepPreset(name, grid = this.grid) {
        const { [name]: _, ...others } = presets();
        localStorage.setItem(OWN, JSON.stringify(grid ? { ...others, [name]: grid } : others));
        this.offer();
    }

    get ready() {
        return this.grid !== null && !this.linked();
    }

    drawNow() {
        const colours = theme();
        colour(this.element, colours);
        this.element.dataset.locked = !this.ready;
        for (const control of [...this.brushes, this.strength, this.preset, ...this.size]) control.disabled = this.linked();
        const heat = this.run.data();
        const shown = heat !== null && this.run.wanted();
        this.behind.hidden = heat === null;
        this.behind.setAttribute("aria-checked", String(shown));
        this.element.dataset.behind = shown;
        this.cells = [];
        this.canvas.replaceChildren();
        const { clientWidth: width, clientHeight: height } = this.canvas;
        this.hover(this.cursor);
        if (!this.grid || !width || !height) return;
        const [rows, columns] = [this.grid.length, this.grid[0].length];
        if (document.activeElement !== this.size[0]) this.size[0].value = rows;
        if (document.activeElement !== this.size[1]) this.size[1].value = columns;
        const cell = {
            width: Math.max(1, width - FRAME.left - FRAME.right) / columns,
            height: Math.max(1, height - FRAME.top - FRAME.bottom) / rows,
        };
        const gap = cell.width > 5 && cell.height > 5 ? 1 : 0;
        const box = (row, column, fill) =>
            svg("rect", {
                x: column < 0 ? 0 : FRAME.left + column * cell.width,
                y: row < 0 ? 0 : FRAME.top + row * cell.height,
                width: Math.max(0.5, (column < 0 ? FRAME.left - 4 : cell.width) - gap),
                height: Math.max(0.5, (row < 0 ? FRAME.top - 4 : cell.height) - gap),
                fill,
            });
        if (shown) {
            const [x, y] = [FRAME.left, FRAME.top];
            const address = heatMap(heat, alongSampling(heat), colours.behind);
            const place = { x, y, width: cell.width * columns, height: cell.height * rows, preserveAspectRatio: "none", href: address };
            this.canvas.append(svg("image", { class: "behind", ...place }));
        }
        for (let row = 0; row < rows; row++) this.canvas.append(box(row, -1, colours.grid));
        for (let column = 0; column < columns; column++) this.canvas.append(box(-1, column, colours.grid));
        this.canvas.append(box(-1, -1, colours.axis));
        this.numbered = cell.width >= 20 && cell.height >= 13;
        this.cells = this.grid.map((values, row) =>
            values.map((_, column) => {
                const rect = box(row, column, "none");
                const label = svg("text", {
                    x: FRAME.left + (column + 0.5) * cell.width,
                    y: FRAME.top + (row + 0.5) * cell.height + 4,
                    "text-anchor": "middle",
                    "pointer-events": "none",
                });
                label.style.font = "10px sans-serif";
                this.canvas.append(rect, label);
                return { rect, label };
            }),
        );
        for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) this.paintCell(row, column);
        const words = (words, x, anchor) => {
            const label = svg("text", { x, y: height - 4, fill: colours.quiet, "text-anchor": anchor }, words);
            label.style.font = "10px sans-serif";
            return label;
        };
        this.canvas.append(words(say("start"), FRAME.left, "start"), words(say("end"), width - FRAME.right, "end"));
        const depth = (text, y, anchor) => {
            const label = words(text, 0, anchor);
            label.setAttribute("y", "0");
            label.setAttribute("transform", `translate(9 ${y}) rotate(-90)`);
            label.setAttribute("fill", colours.text); // they stand on the bars, which are painted with
            label.style.pointerEvents = "none";
            return label;
        };
        this.canvas.append(depth(say("firstBlocks"), FRAME.top + 2, "end"), depth(say("lastBlocks"), height - FRAME.bottom - 4, "start"));
        this.outline = this.canvas.appendChild(svg("rect", { fill: "none", stroke: colours.text, "stroke-width": 2, visibility: "hidden" }));
        this.hover(this.cursor);
    }

    paintCell(row, column) {
        const { cells, axis, edge } = theme();
        const behind = this.element.dataset.behind === "true";
        const value = this.grid[row][column];
        const fill = value <= 1 ? mix(cells[0], cells[1], value) : mix(cells[1], cells[2], value - 1);
        const { rect, label } = this.cells[row][column];
        rect.setAttribute("fill", fill);
        rect.setAttribute("stroke", behind ? edge : value < 1 ? axis : "none"); // what is faint still has an edge
        label.setAttribute("stroke", behind ? fill : "none"); // round the number, over what is behind
        label.textContent = this.numbered ? String(round(value)) : "";
        label.setAttribute("fill", this.numbered ? opposite(fill) : "none");
    }

    // --- painting

    /**
     * [row, column] under the pointer; −1 stands for the bars.
     * @returns {[number, number]}
     */
    under(event) {
        const place = this.canvas.getBoundingClientRect(); // as it is on the screen, at whatever zoom
        const x = ((event.clientX - place.left) / place.width) * this.canvas.clientWidth - FRAME.left;
        const y = ((event.clientY - place.top) / place.height) * this.canvas.clientHeight - FRAME.top;
        const [rows, columns] = [this.grid.length, this.grid[0].length];
        const row = Math.floor((y / (this.canvas.clientHeight - FRAME.top - FRAME.bottom)) * rows);
        const column = Math.floor((x / (this.canvas.clientWidth - FRAME.left - FRAME.right)) * columns);
        return [Math.min(Math.max(row, -1), rows - 1), Math.min(Math.max(column, -1), columns - 1)];
    }

    begin(event) {
        if (event.button !== 0 || !this.ready) return;
        event.preventDefault();
        this.canvas.focus({ preventScroll: true });
        this.canvas.setPointerCapture(event.pointerId);
        this.stroke = event.shiftKey ? 0 : this.brush;
        this.last = this.under(event);
        this.ramp = event.ctrlKey || event.metaKey ? { grid: this.grid.map((row) => [...row]), from: this.last } : null;
        if (!this.ramp) this.paint(this.last, this.stroke);
        this.hover(this.last);
    }

    move(event) {
        if (!this.ready) return;
        const to = this.under(event);
        if (this.stroke !== null) {
            if (this.ramp) this.gradient(to);
            else for (const place of between(this.last, to)) this.paint(place, this.stroke);
            this.last = to;
        }
        this.hover(to);
    }

    end(event) {
        if (this.stroke === null) return;
        if (event) this.move(event); // a fast pointer is let go of where it has not been seen to move
        this.stroke = this.ramp = null;
        this.keep();
    }

    /** From the strength where the stroke began to the brush's at another cell, over all cells between the two. On a bar over whole rows or columns. */
    gradient([toRow, toColumn]) {
        const { grid, from: [fromRow, fromColumn] } = this.ramp;
        const rows = fromRow < 0 ? [0, grid.length - 1] : [fromRow, Math.max(toRow, 0)];
        const columns = fromColumn < 0 ? [0, grid[0].length - 1] : [fromColumn, Math.max(toColumn, 0)];
        const [down, across] = [fromRow < 0 ? 0 : rows[1] - rows[0], fromColumn < 0 ? 0 : columns[1] - columns[0]];
        const length = down ** 2 + across ** 2 || 1;
        const first = grid[Math.max(fromRow, 0)][Math.max(fromColumn, 0)];
        const inside = (at, ends) => at >= Math.min(...ends) && at <= Math.max(...ends);
        grid.forEach((row, r) =>
            row.forEach((value, c) => {
                const along = ((r - rows[0]) * down + (c - columns[0]) * across) / length;
                this.grid[r][c] = inside(r, rows) && inside(c, columns) ? round(first + (this.stroke - first) * along) : value;
                this.paintCell(r, c);
            }),
        );
    }

    paint([row, column], value) {
        const all = (length, at) => (at >= 0 ? [at] : [...Array(length).keys()]);
        for (const r of all(this.grid.length, row)) {
            for (const c of all(this.grid[0].length, column)) {
                this.grid[r][c] = value;
                this.paintCell(r, c);
            }
        }
    }

    keep() {
        this.write(JSON.stringify({ grid: this.grid }));
    }

    fill(cellOf) {
        if (!this.linked()) this.replace(shaped(this.grid?.length ?? 8, this.grid?.[0].length ?? 12, cellOf));
    }

    resize() {
        if (this.ready) {
            const [rows, columns] = ["rows", "columns"].map((name, i) =>
                Math.min(Math.max(Math.round(Number(this.size[i].value)) || 1, 1), MOST[name]),
            );
            const old = this.grid;
            this.grid = shaped(rows, columns, (d, t) => old[Math.floor(d * old.length)][Math.floor(t * old[0].length)]);
            this.keep();
            [this.size[0].value, this.size[1].value] = [rows, columns];
        }
        this.draw();
    }

    key(event) {
        if (!this.ready || event.ctrlKey || event.metaKey || event.altKey) return; // undo and the like are ComfyUI's
        const [row, column] = this.cursor?.map((at) => Math.max(at, 0)) ?? [0, 0];
        const [rows, columns] = [this.grid.length, this.grid[0].length];
        const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
        const strokes = { " ": [row, column], Enter: [row, column], r: [row, -1], c: [-1, column], a: [-1, -1] };
        const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
        if (moves[name]) {
            const to = [row + moves[name][0], column + moves[name][1]];
            this.hover([Math.min(Math.max(to[0], 0), rows - 1), Math.min(Math.max(to[1], 0), columns - 1)]);
        } else if (strokes[name] || name === "Delete" || name === "Backspace") {
            this.paint(strokes[name] ?? [row, column], strokes[name] ? this.brush : 0);
            this.keep();
            this.hover([row, column]);
        } else if (name in BRUSHES) {
            this.choose(BRUSHES[Number(name)]);
        } else if (name === "+" || name === "-") {
            this.choose(this.brush + (name === "+" ? BRUSH_STEP : -BRUSH_STEP));
        } else {
            return;
        }
        event.preventDefault();
        event.stopPropagation();
    }

    // --- words

    hover(cursor) {
        if (this.grid && cursor) cursor = [Math.min(cursor[0], this.grid.length - 1), Math.min(cursor[1], this.grid[0].length - 1)];
        this.cursor = cursor;
        this.note.textContent = this.note.title = this.words();
        const rect = cursor && this.cells[cursor[0]]?.[cursor[1]]?.rect;
        this.outline?.setAttribute("visibility", rect ? "visible" : "hidden");
        for (const name of rect ? ["x", "y", "width", "height"] : []) this.outline.setAttribute(name, rect.getAttribute(name));
    }

    words() {
        if (this.linked()) return say("linked");
        if (!this.grid) return say("noGrid");
        if (!this.cursor) return say("painterHelp");
        const [row, column] = this.cursor;
        const part = (at, of) => ({ from: Math.round((100 * at) / of), to: Math.round((100 * (at + 1)) / of) });
        const where = [
            row < 0 ? say("allDepths") : say("depth", part(row, this.grid.length)),
            column < 0 ? say("allTimes") : say("time", part(column, this.grid[0].length)),
        ];
        return `${where.join(", ")}${row < 0 || column < 0 ? "" : `: ${round(this.grid[row][column])}`}`;
    }
}

/** The user's own presets: {name: grid}; what is no grid is left out. */
function presets() {
    try {
        const kept = Object.entries(JSON.parse(localStorage.getItem(OWN) ?? "{}"));
        return Object.fromEntries(kept.filter(([, grid]) => isGrid(grid)));
    } catch {
        return {};
    }
}

/** The rows of a text that is a grid; null if it is none. */
function parsed(text) {
    try {
        const { grid } = JSON.parse(text);
        return isGrid(grid) ? grid : null;
    } catch {
        return null;
    }
}

function isGrid(grid) {
    const good = (row) => row.length === grid[0].length && row.every((cell) => typeof cell === "number" && cell >= 0 && cell <= MOST.factor);
    try {
        return grid.length >= 1 && grid.length <= MOST.rows && grid[0].length >= 1 && grid[0].length <= MOST.columns && grid.every(good);
    } catch {
        return false; // nothing like one
    }
}

function shaped(rows, columns, cellOf) {
    return Array.from({ length: rows }, (_, r) => Array.from({ length: columns }, (_, c) => cellOf((r + 0.5) / rows, (c + 0.5) / columns)));
}

/**
 * The places on the way from one to another, both included: a fast pointer skips cells.
 * @param {[number, number]} from
 * @param {[number, number]} to
 * @returns {[number, number][]}
 */
function between([row, column], [toRow, toColumn]) {
    const count = Math.max(Math.abs(toRow - row), Math.abs(toColumn - column), 1);
    return Array.from({ length: count + 1 }, (_, i) => [
        Math.round(row + ((toRow - row) * i) / count),
        Math.round(column + ((toColumn - column) * i) / count),
    ]);
}

function round(value) {
    return Math.round(value * 100) / 100;
}
