// @ts-check
// The stability chart: one measure over the steps, a line for each stage of the model; or one block by block, as a heat map whose rows can be picked.
//
// Data is {steps, measures: [name], points: [{step, sigma, stages: {name: [value or null, for each measure]}}]}, and for the heat map what heat.js says.
// Drawn as SVG, which stays sharp at any zoom.

import { shortest } from "./blocks.js";
import { alongSteps, heatMap, range } from "./heat.js";
import { colour, holdPresses, html, onceAFrame, svg, theme } from "./theme.js";
import { say } from "./words.js";

const MARGIN = { left: 46, right: 10, top: 8, bottom: 20 };
const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 3", "10 4", "4 2 1 2", "3 6"];
const FIRST_SHOWN = "alignment"; // until another is chosen: its scale is the same for every block, that of energy is not
const BY_BLOCK = "instability by block"; // of the heat map, also in nodes/engine/records/chart.py
const FONT = "11px sans-serif";

let shows = 0; // of all charts, so that it can be told which was shown anything last

export class Chart {
    /**
     * @param {(measure: string) => void} remember is called when the user chooses another measure
     * @param {Record<string, () => void>} commands further keys: {key: action}
     * @param {import("./blocks.js").Target} target for the blocks that are picked
     */
    constructor(remember, commands, target) {
        this.commands = commands;
        this.target = target;
        this.picked = new Set(); // blocks
        this.row = null; // the block under the pointer or the arrow keys
        this.draw = onceAFrame(() => this.drawNow());
        this.data = null;
        this.shown = 0;
        this.measure = 0;
        this.at = null; // the point under the pointer or the arrow keys
        this.choice = html("select", { "aria-label": say("measure") });
        this.choice.addEventListener("change", () => {
            this.measure = this.choice.selectedIndex;
            remember(this.choice.value);
            this.draw();
        });
        this.put = html("span", { class: "head", hidden: "" }, target.list, target.button);
        this.legend = html("div", { class: "legend" });
        this.plot = svg("svg", { role: "img", tabindex: "0" });
        this.element = html(
            "div",
            { class: "circulation chart" },
            html("div", { class: "head" }, this.choice, this.put, this.legend),
            html("div", { class: "plot" }, this.plot),
        );
        holdPresses(this.element);
        this.plot.addEventListener("pointermove", (event) => this.point(this.under(event), this.rowUnder(event)));
        this.plot.addEventListener("click", (event) => this.pick(this.rowUnder(event)));
        this.element.addEventListener("pointerenter", () => this.byBlock && target.offer()); // nodes come and go
        this.plot.addEventListener("pointerleave", () => this.point(null));
        this.plot.addEventListener("blur", () => this.point(null));
        this.plot.addEventListener("keydown", (event) => this.key(event));
        new ResizeObserver(() => this.draw()).observe(this.plot);
        this.draw();
    }

    show(data, measure) {
        this.data = data;
        this.shown = ++shows;
        const measures = [...(data?.measures ?? []), ...(data?.blocks ? [BY_BLOCK] : [])];
        if (measures.join() !== [...this.choice.options].map((option) => option.value).join()) {
            this.choice.replaceChildren(...measures.map((name) => html("option", { value: name }, name === BY_BLOCK ? say("byBlock") : name)));
            this.measure = Math.max(0, measures.indexOf(measures.includes(measure) ? measure : FIRST_SHOWN));
            this.choice.selectedIndex = this.measure;
        }
        this.draw();
    }

    get points() {
        return this.data?.points ?? [];
    }

    /** Whether the heat map is shown. */
    get byBlock() {
        return this.choice.value === BY_BLOCK;
    }

    /** [[stage, its values of the chosen measure, point by point]] */
    get lines() {
        const stages = [...new Set(this.points.flatMap((point) => Object.keys(point.stages)))];
        return stages.map((stage) => [stage, this.points.map((point) => point.stages[stage]?.[this.measure] ?? null)]);
    }

    drawNow() {
        const colours = theme();
        colour(this.element, colours);
        const { clientWidth: width, clientHeight: height } = this.plot;
        this.choice.hidden = !this.points.length;
        this.plot.setAttribute("aria-label", this.words());
        this.put.hidden = !this.byBlock;
        this.legend.classList.toggle("words", this.byBlock);
        this.scale = this.scaleOf(width, height);
        this.plot.replaceChildren(...(width && height && this.points.length ? this.pictureOf(this.scale, colours) : []));
        if (this.byBlock) this.count();
        this.outline = this.plot.appendChild(svg("rect", { fill: "none", stroke: colours.text, "stroke-width": 1, visibility: "hidden" }));
        this.mark = this.plot.appendChild(svg("line", { stroke: colours.text, "stroke-width": 1, visibility: "hidden" }));
        this.point(this.at, this.row);
    }

    scaleOf(width, height) {
        return this.byBlock ? heatScale(this.data, width, height) : scale(this.lines, this.data?.steps ?? 1, width, height);
    }

    pictureOf(s, colours) {
        return this.byBlock ? heatPicture(this.data, this.picked, s, colours, FONT) : picture(this.lines, this.points, s, colours, FONT);
    }

    /** Takes a block into those that can be put into a node, or out of them. */
    pick(row) {
        if (row === null) return;
        const block = this.data.blocks[row];
        if (!this.picked.delete(block)) this.picked.add(block);
        this.drawNow();
    }

    /** The picked blocks of this model, in the words of the grammar. */
    count() {
        const { blocks } = this.data;
        this.target.offer(shortest(blocks.filter((block) => this.picked.has(block)), blocks));
    }

    /** Shows the values of one point, or of the last one, in the legend; of the heat map those of one block. */
    point(at, row = null) {
        this.at = at !== null && this.points[at] ? at : null;
        this.row = this.byBlock && row !== null && row < this.data.blocks.length ? row : null;
        if (this.byBlock) this.sayBlock();
        else this.sayStages();
        this.outline.setAttribute("visibility", this.row === null ? "hidden" : "visible");
        if (this.row !== null) {
            const { left, right } = this.scale;
            const box = { x: left, width: right - left, y: this.scale.y(this.row), height: this.scale.y(1) - this.scale.y(0) };
            for (const [name, value] of Object.entries(box)) this.outline.setAttribute(name, value);
        }
        if (this.at === null) return this.mark.setAttribute("visibility", "hidden");
        const x = this.scale.x(this.points[this.at].step);
        for (const [name, value] of Object.entries({ x1: x, x2: x, y1: this.scale.top, y2: this.scale.bottom, visibility: "visible" })) {
            this.mark.setAttribute(name, value);
        }
    }

    sayBlock() {
        const shown = this.points[this.at ?? this.points.length - 1];
        const value = shown && this.row !== null && `${this.data.blocks[this.row]} ${number(shown.unsettled[this.row])}`;
        const parts = [this.target.words, value && say("step", { step: shown.step, steps: this.data.steps }), value].filter(Boolean);
        const words = parts.join(" · ") || say("pickBlocks");
        this.legend.replaceChildren(html("span", { class: "note", title: words }, words));
    }

    sayStages() {
        const shown = this.points[this.at ?? this.points.length - 1];
        const lines = this.lines;
        const colours = theme().lines;
        if (!shown) {
            this.legend.replaceChildren(say("nothingMeasured"));
        } else {
            const entries = lines.map(([stage, values], i) => {
                const sample = svg("svg", { width: 18, height: 8, "aria-hidden": "true" }, stroke(`M0 4H18`, i, colours));
                return html("span", {}, sample, ` ${stage} ${number(values[this.at ?? values.length - 1])}`);
            });
            this.legend.replaceChildren(html("span", {}, say("step", { step: shown.step, steps: this.data.steps })), ...entries);
        }
    }

    /** The index of the point nearest to the pointer. */
    under(event) {
        const box = this.plot.getBoundingClientRect(); // as it is on the screen, at whatever zoom
        const x = ((event.clientX - box.left) / box.width) * this.plot.clientWidth;
        const away = this.points.map((point) => Math.abs(this.scale.x(point.step) - x));
        return away.length ? away.indexOf(Math.min(...away)) : null;
    }

    /** The index of the block under the pointer; null beside the heat map. */
    rowUnder(event) {
        if (!this.byBlock) return null;
        const box = this.plot.getBoundingClientRect();
        const y = ((event.clientY - box.top) / box.height) * this.plot.clientHeight;
        const row = Math.floor(((y - this.scale.top) / (this.scale.bottom - this.scale.top)) * this.data.blocks.length);
        return row >= 0 && row < this.data.blocks.length ? row : null;
    }

    key(event) {
        if (!this.points.length || event.ctrlKey || event.metaKey || event.altKey) return;
        const last = this.points.length - 1;
        const now = this.at ?? last;
        const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
        const down = this.byBlock ? { ArrowUp: -1, ArrowDown: 1 }[event.key] : undefined;
        const picks = this.byBlock && [" ", "Enter"].includes(event.key);
        const command = this.commands[event.key.toLowerCase()];
        if (to === undefined && down === undefined && !picks && !command) return;
        event.preventDefault();
        event.stopPropagation();
        if (command) return command();
        this.legend.setAttribute("aria-live", "polite");
        if (picks) return this.pick(this.row);
        const row = this.byBlock ? Math.min(Math.max((this.row ?? -1) + (down ?? 0), 0), this.data.blocks.length - 1) : null;
        this.point(Math.min(Math.max(to ?? now, 0), last), row);
    }

    words() {
        if (!this.points.length) return `${say("chart")}. ${say("nothingMeasured")}`;
        if (this.byBlock) {
            const whole = say("overSteps", { measure: say("byBlock"), count: this.points.length });
            const [least, most] = (range(this.data) ?? [null, null]).map(number);
            return `${whole}: ${say("fromTo", { least, most })}. ${say("blockKeys")}`;
        }
        const ends = this.lines.map(([stage, values]) => say("chartRange", { stage, first: number(values[0]), last: number(values.at(-1)) }));
        const whole = say("overSteps", { measure: this.data.measures[this.measure], count: this.points.length });
        return `${whole}: ${ends.join(", ")}. ${say("chartKeys")}`;
    }

    csv() {
        const { measures, blocks } = this.data;
        if (this.byBlock) {
            const rows = this.points.flatMap(({ step, sigma, unsettled }) => blocks.map((block, i) => [step, sigma, block, unsettled[i] ?? ""].join()));
            return [["step", "sigma", "block", "instability"].join(), ...rows, ""].join("\n");
        }
        const rows = this.points.flatMap(({ step, sigma, stages }) =>
            Object.entries(stages).map(([stage, values]) => [step, sigma, stage, ...values.map((value) => value ?? "")].join()),
        );
        return [["step", "sigma", "stage", ...measures].join(), ...rows, ""].join("\n");
    }

    /** The chart with its legend as a PNG, 1200 × 600. */
    async png() {
        const [width, height, head, factor] = [600, 300, 24, 2];
        const colours = theme();
        const lines = this.byBlock ? [] : this.lines;
        const room = width / (lines.length + 1);
        const legend = lines.flatMap(([stage], i) => [
            stroke(`M${room * (i + 1)} 14h18`, i, colours.lines),
            text(stage, room * (i + 1) + 24, 18, colours.text, "start", FONT),
        ]);
        const body = svg("g", { transform: `translate(0 ${head})` });
        body.append(...this.pictureOf(this.scaleOf(width, height - head), colours));
        const whole = svg(
            "svg",
            { xmlns: "http://www.w3.org/2000/svg", width: width * factor, height: height * factor, viewBox: `0 0 ${width} ${height}` },
            svg("rect", { width, height, fill: colours.background }),
            text(this.choice.selectedOptions[0].text, 10, 18, colours.text, "start", `bold ${FONT}`),
            ...legend,
            body,
        );
        const image = new Image();
        image.src = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(whole))}`;
        await image.decode();
        const canvas = html("canvas", { width: width * factor, height: height * factor });
        canvas.getContext("2d").drawImage(image, 0, 0);
        return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    }
}

function scale(lines, steps, width, height) {
    const values = lines.flatMap(([, values]) => values).filter((value) => value !== null);
    let [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    if (high - low < 1e-9 * Math.max(1, Math.abs(high))) [low, high] = [low - 0.5, high + 0.5];
    const edge = (high - low) * 0.06;
    const [left, right] = [MARGIN.left, Math.max(width - MARGIN.right, MARGIN.left + 1)];
    const [top, bottom] = [MARGIN.top, Math.max(height - MARGIN.bottom, MARGIN.top + 1)];
    return {
        left, right, top, bottom, steps,
        low: low - edge,
        high: high + edge,
        x: (step) => (steps > 1 ? left + ((step - 1) / (steps - 1)) * (right - left) : (left + right) / 2),
        y: (value) => bottom - ((value - low + edge) / (high - low + 2 * edge)) * (bottom - top),
    };
}

function picture(lines, points, s, colours, font) {
    const values = ticks(s.low, s.high, Math.max(2, Math.floor((s.bottom - s.top) / 34)));
    const steps = ticks(1, s.steps, Math.max(2, Math.floor((s.right - s.left) / 60))).filter((step) => Number.isInteger(step) && step >= 1);
    const places = s.steps < 2 ? [1] : steps.includes(1) ? steps : [1, ...steps.filter((step) => s.x(step) - s.left > 24)];
    return [
        ...values.map((value) => svg("path", { d: `M${s.left} ${s.y(value)}H${s.right}`, stroke: colours.grid })),
        ...values.map((value) => text(number(value), s.left - 6, s.y(value) + 4, colours.quiet, "end", font)),
        ...places.map((step) => text(step, s.x(step), s.bottom + 15, colours.quiet, "middle", font)),
        svg("path", { d: `M${s.left} ${s.top}V${s.bottom}H${s.right}`, stroke: colours.axis, fill: "none" }),
        ...lines.map(([stage, row], i) => {
            const line = stroke(path(row, points, s), i, colours.lines);
            line.dataset.stage = stage;
            return line;
        }),
    ];
}

function heatScale({ blocks, steps }, width, height) {
    const names = Math.max(...blocks.map((block) => block.length)) * 6 + 16; // pixels for them at the left
    const [left, right] = [Math.min(names, width / 2), Math.max(width - MARGIN.right, width / 2 + 1)];
    const [top, bottom] = [MARGIN.top, Math.max(height - MARGIN.bottom, MARGIN.top + 1)];
    return {
        left, right, top, bottom, steps,
        x: (step) => left + ((step - 0.5) / steps) * (right - left),
        y: (row) => top + (row / blocks.length) * (bottom - top),
    };
}

/** The heat map with its axes, and bars at the rows of the picked blocks. */
function heatPicture(data, picked, s, colours, font) {
    const { blocks, steps } = data;
    const row = s.y(1) - s.y(0);
    const named = Math.ceil(12 / row); // every so many rows have a name beside them
    const places = ticks(1, steps, Math.max(2, Math.floor((s.right - s.left) / 60))).filter((step) => Number.isInteger(step) && step >= 1);
    const address = heatMap(data, alongSteps(data), colours.heat);
    const image = svg("image", { x: s.left, y: s.top, width: s.right - s.left, height: s.bottom - s.top, href: address, preserveAspectRatio: "none" });
    image.style.imageRendering = "pixelated";
    return [
        image,
        ...blocks.flatMap((block, i) => (i % named ? [] : [text(block, s.left - 10, s.y(i) + row / 2 + 4, colours.quiet, "end", font)])),
        ...blocks.flatMap((block, i) => (picked.has(block) ? [svg("rect", { class: "picked", x: s.left - 7, y: s.y(i), width: 5, height: row, fill: colours.text })] : [])),
        ...places.map((step) => text(step, s.x(step), s.bottom + 15, colours.quiet, "middle", font)),
        svg("path", { d: `M${s.left} ${s.top}V${s.bottom}H${s.right}`, stroke: colours.axis, fill: "none" }),
    ];
}

/** A line with gaps where nothing was measured; a value alone between gaps is a dot. */
function path(row, points, s) {
    let drawn = "";
    row.forEach((value, i) => {
        if (value === null) return;
        const [x, y] = [s.x(points[i].step).toFixed(1), s.y(value).toFixed(1)];
        const [before, after] = [row[i - 1] ?? null, row[i + 1] ?? null];
        drawn += before === null ? `M${x} ${y}` + (after === null ? "h.1" : "") : `L${x} ${y}`;
    });
    return drawn;
}

function stroke(d, i, hues) {
    return svg("path", {
        d, fill: "none", stroke: hues[i % hues.length], "stroke-width": 2, "stroke-linecap": "round", "stroke-linejoin": "round",
        "stroke-dasharray": DASHES[i % DASHES.length],
    });
}

function text(words, x, y, fill, anchor, font) {
    const element = svg("text", { x, y, fill, "text-anchor": anchor }, String(words));
    element.style.font = font;
    return element;
}

/** Round numbers, at most `count` + 1, that lie between two numbers. */
function ticks(low, high, count) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((multiple) => multiple * power >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function number(value) {
    if (value === null || value === undefined) return say("none");
    return String(Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(1) : Number(value.toPrecision(4))).replace("-", "−");
}
