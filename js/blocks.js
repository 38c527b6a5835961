// @ts-check
// The attentions of a model as rows to pick, and a button that writes the picked ones into the `blocks` of another node.
//
// Data is [[address, heads, head size, a phrase why it is left alone or ""]], in the order in which the model computes.

import { colour, holdPresses, html, theme } from "./theme.js";
import { say, spoken } from "./words.js";

/** The nodes that can take words for blocks, and a button that puts them there. */
export class Target {
    /**
     * @param {() => [string, string][]} nodes gives them: [id, title]
     * @param {(id: string, words: string) => void} put writes there
     */
    constructor(nodes, put) {
        this.nodes = nodes;
        this.words = "";
        this.list = html("select", { "aria-label": say("targetNode") });
        this.button = html("button", { type: "button" }, say("putBlocks"));
        this.button.addEventListener("click", () => put(this.list.value, this.words));
        this.button.addEventListener("keydown", (event) => [" ", "Enter"].includes(event.key) && event.stopPropagation()); // a click
    }

    /** Lists the nodes, and whether there is anything to put. */
    offer(words = this.words) {
        const [before, nodes] = [this.list.value, this.nodes()];
        this.words = words;
        this.list.replaceChildren(...nodes.map(([id, title]) => html("option", { value: id }, title)));
        if (nodes.some(([id]) => id === before)) this.list.value = before;
        this.list.hidden = !nodes.length;
        this.button.disabled = !nodes.length || !words;
    }
}

export class BlockList {
    /** @param {Target} target */
    constructor(target) {
        this.target = target;
        this.boxes = new Map(); // address → its checkbox, of those that can be picked
        this.stages = []; // [the checkbox of a whole stage, those of its blocks]
        this.words = html("span", { class: "note", role: "status" });
        this.rows = html("div", { class: "rows" });
        this.element = html("div", { class: "circulation blocks" }, html("div", { class: "head" }, target.list, target.button), this.words, this.rows);
        holdPresses(this.element);
        this.element.addEventListener("keydown", (event) => this.key(event));
        for (const event of ["pointerenter", "focusin"]) this.element.addEventListener(event, () => target.offer()); // nodes come and go
        this.draw();
        this.count();
    }

    show(blocks) {
        const picked = new Set(this.picked);
        const stageOf = ([address]) => address.split(".")[0];
        const stages = [...new Set(blocks.map(stageOf))];
        this.boxes.clear();
        this.stages = [];
        this.rows.replaceChildren(...stages.flatMap((stage) => this.stage(stage, blocks.filter((row) => stageOf(row) === stage))));
        for (const [address, box] of this.boxes) box.checked = picked.has(address);
        this.count();
    }

    /** The rows of a stage below one for all of it. */
    stage(stage, rows) {
        const boxes = [];
        const line = (name, note, title, box) => html("label", { title }, box, name, html("span", { class: "note" }, note));
        const lines = rows.map(([address, heads, size, why]) => {
            const box = html("input", { type: "checkbox" });
            box.disabled = Boolean(why);
            if (!why) {
                this.boxes.set(address, box);
                boxes.push(box);
            }
            box.addEventListener("change", () => this.count());
            const note = spoken(why) || say("attentionsOf", { heads, size });
            return line(address, note, `${address}: ${note}`, box);
        });
        const whole = html("input", { type: "checkbox" });
        whole.disabled = !boxes.length;
        whole.addEventListener("change", () => {
            for (const box of boxes) box.checked = whole.checked;
            this.count();
        });
        this.stages.push([whole, boxes]);
        const head = line(stage, "", stage, whole);
        head.classList.add("stage");
        return [head, ...lines];
    }

    get picked() {
        return [...this.boxes].filter(([, box]) => box.checked).map(([address]) => address);
    }

    /** Says what is picked, in the words of the grammar. */
    count() {
        for (const [whole, boxes] of this.stages) {
            const on = boxes.filter((box) => box.checked).length;
            whole.checked = on > 0 && on === boxes.length;
            whole.indeterminate = on > 0 && on < boxes.length;
        }
        const words = shortest(this.picked, [...this.boxes.keys()]);
        this.words.textContent = this.words.title = words || say(this.boxes.size ? "pickBlocks" : "notListed");
        this.target.offer(words);
    }

    draw() {
        colour(this.element, theme());
    }

    /** Arrow keys go from row to row; what else these keys do in ComfyUI is not meant. */
    key(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        if (event.key === " " || event.key === "Enter") event.stopPropagation();
        const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
        if (!by || !event.target.matches("[type=checkbox]")) return;
        event.preventDefault();
        event.stopPropagation();
        const all = [...this.rows.querySelectorAll("input:not(:disabled)")];
        all[all.indexOf(event.target) + by]?.focus();
    }
}

/**
 * The shortest words of the grammar of nodes/engine/rules/blocks.py that mean these blocks of a model: "all", "middle, output.3-5", "!input".
 * @param {string[]} picked
 * @param {string[]} all
 */
export function shortest(picked, all) {
    if (!picked.length) return "";
    if (picked.length === all.length) return "all";
    const chosen = new Set(picked);
    const these = items(chosen, all);
    const others = items(new Set(all.filter((address) => !chosen.has(address))), all).map((item) => `!${item}`);
    return others.join().length < these.join().length ? others.join(", ") : these.join(", ");
}

/** Whole stages, ranges of whole blocks, and ranges of the layers of others. */
function items(chosen, all) {
    const parts = (depth) => (address) => address.split(".").slice(0, depth).join(".");
    const within = (name, depth) => all.filter((address) => parts(depth)(address) === name);
    const whole = (name, depth) => within(name, depth).every((address) => chosen.has(address));
    const below = (name, depth) => [...new Set(within(name, depth).map(parts(depth + 1)))];
    const number = (name) => Number(name.split(".").at(-1));
    /** [name, or names of a range] of those that are whole; others are left to `rest` */
    const ranges = (names, depth, rest) => {
        const found = [];
        let run = [];
        const end = () => {
            if (run.length) found.push(run.length > 1 ? `${run[0]}-${number(run.at(-1))}` : run[0]);
            run = [];
        };
        for (const name of names.sort((a, b) => number(a) - number(b))) {
            if (whole(name, depth)) run.push(name);
            else {
                end();
                found.push(...rest(name));
            }
        }
        end();
        return found;
    };
    return [...new Set(all.map(parts(1)))].flatMap((stage) => {
        if (whole(stage, 1)) return [stage];
        return ranges(below(stage, 1), 2, (block) => ranges(below(block, 2), 3, () => []));
    });
}
