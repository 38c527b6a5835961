"""A page with ComfyUI's front end, and what a test does in it."""

import copy
import json
import re
import time
from contextlib import contextmanager

from .server import PATIENCE, READY

EMPTY = {"nodes": [], "links": [], "version": 0.4, "last_node_id": 0, "last_link_id": 0, "groups": [], "config": {}, "extra": {}}
NODE = """const find = (graph, name) => graph.nodes.find(node => node.type === name);
const node = (name, root) => find(root ? app.rootGraph : app.canvas.graph, name);
const widget = (name, root) => node(name, root).widgets.find(widget => widget.element?.classList.contains('circulation')).element;
"""


def small_graph(workflow, steps, seed, size=64):
    """The workflow with small images, few steps and a seed."""
    graph = copy.deepcopy(workflow)
    for node in graph["nodes"]:
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = size, size
        if node["type"] == "KSampler":
            node["widgets_values"] = [seed, "fixed", steps, 2.0, "euler", "normal", 1.0]
        if node["type"] == "CirculationGrid":
            node["widgets_values"][4:8] = steps, 2.0, "euler", "normal"
    return graph


def renumbered(graph, by):
    """The workflow with other numbers of its nodes: front ends keep what nodes put out under their numbers, also for the next workflow."""
    graph = copy.deepcopy(graph)
    for node in graph["nodes"]:
        node["id"] += by
    graph["links"] = [[link, source + by, output, target + by, *rest] for link, source, output, target, *rest in graph["links"]]
    return {**graph, "last_node_id": graph["last_node_id"] + by}


class Screen:
    def __init__(self, page):
        self.page = page

    def js(self, expression, *values):
        return self.page.evaluate(f"async values => {{ {NODE} return {expression}; }}", list(values))

    # --- waiting

    def wait(self, found):
        """Waits until `found` gives something, and gives it."""
        end = time.monotonic() + PATIENCE
        while not (value := found()):
            assert time.monotonic() < end
            self.page.wait_for_timeout(20)
        return value

    def point_at(self, element, x, y, until):
        """Moves the pointer to a place in an element until something shows there: where the page moves meanwhile, a pointer at rest misses it."""

        def shows():
            box = element.bounding_box()
            for off in (1, 0):
                self.page.mouse.move(box["x"] + x + off, box["y"] + y)
            return until()

        self.wait(shows)

    def settle(self, frames=9):
        """Waits until nodes and our widgets look the same for so many frames of the page, each followed by a timer of its own.

        The front end lays nodes out anew a moment after they were touched. What it defers by timers comes before ours, however
        slow the page is: nine frames outlast half a second of them.
        """
        self.page.evaluate(STILL, frames)

    # --- the graph

    def load(self, graph):
        """In the place of the workflow that is on the screen."""
        self.page.evaluate("graph => app.loadGraphData(graph, true, true, app.extensionManager.workflow.activeWorkflow)", graph)
        self.settle()

    def saved(self):
        return self.page.evaluate("JSON.parse(JSON.stringify(app.rootGraph.serialize()))")

    def prompt(self):
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def value(self, name, widget):
        return self.js("node(values[0]).widgets.find(widget => widget.name === values[1]).value", name, widget)

    def look_at(self, name, scale=1):
        """Moves a node to the upper left of the screen, clear of the menus."""
        self.js(
            "(() => { const { ds } = app.canvas; const { pos } = node(values[0]); ds.scale = values[1];"
            " ds.offset[0] = 150 / ds.scale - pos[0]; ds.offset[1] = 180 / ds.scale - pos[1]; app.canvas.setDirty(true, true); })()",
            name, scale,
        )  # fmt: skip
        self.settle(4)

    def snapshot(self):
        """ComfyUI takes what is on the screen as a state to come back to."""
        self.page.evaluate("() => { app.canvas.emitBeforeChange(); app.canvas.emitAfterChange(); }")

    def toggle_renderer(self):
        self.page.evaluate("""async () => {
            const settings = app.extensionManager.setting;
            window.vueNodes = !settings.get("Comfy.VueNodes.Enabled");
            await settings.set("Comfy.VueNodes.Enabled", window.vueNodes);
        }""")
        self.page.wait_for_function("window.vueNodes === !!document.querySelector('[data-node-id]')")
        self.settle()

    def palette(self, name):
        self.page.evaluate("name => app.extensionManager.setting.set('Comfy.ColorPalette', name)", name)
        self.settle()

    def elsewhere(self, graph):
        """Opens another workflow in a tab of its own."""
        self.page.evaluate(f"graph => {{ window.here = {OPEN}; return app.loadGraphData(graph, true, true, 'other'); }}", graph)
        self.page.wait_for_function(f"{OPEN} !== window.here")
        self.settle()

    def back(self):
        """To the workflow that was on the screen before `elsewhere`."""
        while (now := self.page.evaluate(OPEN)) != self.page.evaluate("window.here"):
            self.page.evaluate("() => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
            self.page.wait_for_function(f"now => {OPEN} !== now", arg=now)
        self.settle()

    def fresh(self):
        """The page as at the first start: front ends keep the outputs of nodes under their ids, also for the next workflow."""
        self.page.evaluate("() => { sessionStorage.clear(); localStorage.clear(); }")
        self.page.reload()
        self.page.wait_for_function(READY)
        self.settle(20)

    def enter(self):
        """Shows the inside of the subgraph."""
        self.page.evaluate("() => app.canvas.setGraph(app.rootGraph.nodes.find(node => node.subgraph).subgraph)")
        self.settle()

    def leave(self):
        self.page.evaluate("() => app.canvas.setGraph(app.rootGraph)")

    def reload(self):
        self.settle(20)  # a workflow is stored a moment after it changed
        self.page.reload()
        self.page.wait_for_function(f"{READY} && window.app.graph.nodes?.length")
        self.settle(20)

    # --- running

    def queue(self):
        self.page.evaluate("""() => {
            const { api } = window.comfyAPI.api;
            window.running = true;
            window.finished = new Promise(resolve => {
                for (const name of ["execution_success", "execution_error", "execution_interrupted"])
                    api.addEventListener(name, ({ detail }) => { window.running = false; resolve([name, detail]); }, { once: true });
            });
            app.queuePrompt(0, 1);
        }""")

    def step(self, name):
        """The step that a chart shows; 0 before there is any."""
        found = re.match(r"step (\d+) of", self.text(name, ".legend"))
        return int(found[1]) if found else 0

    def until(self, name, good):
        """Waits until the step that a chart shows is a good one."""
        self.wait(lambda: good(self.step(name)))

    def watch(self, name):
        """Notes every step that a chart shows."""
        self.js("""(() => {
            window.watched = [];
            const [legend, plot] = [".legend", ".plot > svg"].map(part => widget(values[0]).querySelector(part));
            const note = () => window.watched.push([legend.firstChild.textContent, plot.outerHTML, window.running]);
            new MutationObserver(note).observe(legend, { childList: true });
        })()""", name)

    def watched(self):
        """Of each step that was noted the picture, and whether the run was still going on."""
        noted = self.page.evaluate("window.watched")
        return {int(text.split()[1]): (picture, running) for text, picture, running in noted if text.startswith("step")}

    def finished(self):
        """The outputs of the prompt that was queued last."""
        name, detail = self.page.evaluate("window.finished")
        assert name == "execution_success", detail
        self.settle(4)
        history = self.page.evaluate("async id => (await fetch(`/history/${id}`)).json()", detail["prompt_id"])
        return history[detail["prompt_id"]]["outputs"]

    def interrupt(self):
        self.page.evaluate("""async () => {
            const { api } = window.comfyAPI.api;
            await api.interrupt();
            while ((await (await api.fetchApi("/queue")).json()).queue_running.length) await new Promise(resolve => setTimeout(resolve, 100));
            await window.finished; // of what this page queued: then it has heard all that the run told
        }""")
        self.settle(4)

    def tell_steps(self, steps):
        """As many events as a sampler of so many steps sends, and what the page then holds."""
        self.js("""(async () => {
            const { api } = window.comfyAPI.api;
            const stages = { input: [0.1, 0.2, 0.3, 0.4, 0.5], output: [0.5, 0.4, 0.3, 0.2, 0.1] };
            const detail = { node: String(node("StabilityProbe").id), prompt: String(Math.random()), steps: values[0], measures: ["a", "b", "c", "d", "e"] };
            for (let step = 1; step <= values[0]; step++) {
                api.dispatchEvent(new CustomEvent("circulation.stability", { detail: { ...detail, step, sigma: 1, stages } }));
                if (step % 50 === 0) await new Promise(requestAnimationFrame);
            }
            await new Promise(resolve => setTimeout(resolve, 900)); // after the pack's own timer, by which it stores them
        })()""", steps)  # fmt: skip
        session = self.page.context.new_cdp_session(self.page)
        session.send("HeapProfiler.collectGarbage")
        heap = session.send("Runtime.getHeapUsage")["usedSize"]
        session.detach()
        return {
            "heap": heap,
            "nodes": self.page.evaluate("document.querySelectorAll('*').length"),
            "stored": self.page.evaluate("Object.keys(sessionStorage).filter(k => k.startsWith('circulation:')).reduce((sum, k) => sum + sessionStorage[k].length, 0)"),
        }

    # --- our widgets

    def widget(self, name, root=False):
        return self.page.evaluate_handle(f"values => {{ {NODE} return widget(...values); }}", [name, root]).as_element()

    def plot(self, name):
        return self.widget(name).query_selector(".plot > svg")

    def picture(self, name):
        """The chart or grid as SVG."""
        return self.plot(name).evaluate("plot => plot.outerHTML")

    def text(self, name, inside="span"):
        return self.widget(name).query_selector(inside).text_content()

    def lines(self, name):
        """Of each curve that is drawn its stage and the number of its points."""
        return self.js("[...widget(values[0]).querySelectorAll('path[data-stage]')].map(path => `${path.dataset.stage} ${path.getAttribute('d').match(/[ML]/g)?.length}`)", name)

    def shown(self):
        """What the nodes show of a run: both charts and the line on the Circulation node."""
        return self.lines("StabilityProbe"), self.lines("StabilityReadout"), self.text("CirculationControl")

    def menu(self, name, item, root=False):
        self.js("app.collectNodeMenuItems(node(values[0], values[2])).find(item => item?.content === values[1]).callback()", name, item, root)

    def csv(self, name, root=False):
        return self.copied(lambda: self.menu(name, "Copy chart as CSV", root))

    def copied(self, copy):
        """What `copy` leaves in the clipboard."""
        self.page.evaluate("navigator.clipboard.writeText('')")
        copy()
        return self.wait(lambda: self.page.evaluate("navigator.clipboard.readText()"))

    # --- the painter

    def brush(self, value):
        self.widget("CirculationSchedule").query_selector(f"button:text-is('{value}')").click()

    def cells(self):
        return self.page.evaluate(f"""() => {{ {NODE}
            const texts = [...widget("CirculationSchedule").querySelectorAll("svg text[text-anchor=middle]")].map(text => text.textContent);
            const columns = Number(widget("CirculationSchedule").querySelector("input[max='64']").value);
            return Array.from({{ length: texts.length / columns }}, (_, row) => texts.slice(row * columns, (row + 1) * columns));
        }}""")

    def drag(self, start, end, modifier=None):
        """From the middle of one cell to the middle of another; −1 stands for the bars."""
        self.settle(4)
        box = self.plot("CirculationSchedule").bounding_box()
        value = json.loads(self.value("CirculationSchedule", "grid"))["grid"]

        def place(row, column):
            x = 4 if column < 0 else 14 + (column + 0.5) * (box["width"] - 16) / len(value[0])
            y = 4 if row < 0 else 14 + (row + 0.5) * (box["height"] - 30) / len(value)
            return box["x"] + x, box["y"] + y

        if modifier:
            self.page.keyboard.down(modifier)
        self.page.mouse.move(*place(*start))
        self.page.mouse.down()
        self.page.mouse.move(*place(*end), steps=4)
        self.page.mouse.up()
        if modifier:
            self.page.keyboard.up(modifier)
        self.settle(2)

    def keys(self, keys, until):
        """Presses keys on the canvas and waits for what they bring about."""
        self.page.evaluate("() => document.activeElement?.blur?.()")
        self.page.keyboard.press(keys)
        self.wait(until)
        self.settle()  # till ComfyUI has done with it too

    # --- looks

    @contextmanager
    def zoomed(self, factor):
        """The page as with the browser's own zoom: so many times fewer pixels of CSS in the same window."""
        size = self.page.viewport_size
        session = self.page.context.new_cdp_session(self.page)
        metrics = {name: value // factor for name, value in size.items()}
        session.send("Emulation.setDeviceMetricsOverride", dict(metrics, deviceScaleFactor=factor, mobile=False))
        self.page.wait_for_function("width => innerWidth === width", arg=metrics["width"])
        self.settle()
        try:
            yield
            assert self.page.evaluate("[innerWidth, devicePixelRatio]") == [metrics["width"], factor]
        finally:
            session.detach()
            self.page.set_viewport_size(dict(size, width=size["width"] + 1))
            self.page.set_viewport_size(size)

    def focused(self):
        """What of ours has the focus: widget and name."""
        return self.page.evaluate("""() => {
            const element = document.activeElement;
            const [, kind] = element?.closest(".circulation")?.classList ?? [];
            return kind ? `${kind} ${element.localName === "svg" ? "svg" : element.getAttribute("aria-label") ?? element.textContent}` : "";
        }""")

    def moving(self):
        """What of ours is animated, or changes while nobody does anything."""
        return self.page.evaluate("""async () => {
            const ours = [...document.querySelectorAll(".circulation, .circulation *")];
            const animated = element => {
                const { animationName, transitionDuration } = getComputedStyle(element);
                return animationName !== "none" || parseFloat(transitionDuration) > 0 || element.getAnimations().length;
            };
            const found = ours.filter(animated).map(element => element.outerHTML.slice(0, 100));
            const observer = new MutationObserver(changes => found.push(...changes.map(({ type, target }) => `${type} ${target.outerHTML.slice(0, 100)}`)));
            for (const element of ours) observer.observe(element, { attributes: true, childList: true });
            for (let frame = 0; frame < 25; frame++) await new Promise(requestAnimationFrame);
            observer.disconnect();
            return found;
        }""")

    def contrasts(self):
        """The contrast, as WCAG 2.2 defines it, of each colour of text, and of each of lines, to its background."""
        return self.page.evaluate(CONTRASTS)

    def overflowing(self, name):
        """What of our widget does not fit: into the node, or into its own box."""
        return self.js("""(() => {
            const element = widget(values[0]);
            const box = element.getBoundingClientRect();
            const vue = element.closest("[data-node-id]");
            const { pos, size } = node(values[0]);
            const { scale, offset } = app.canvas.ds;
            const canvas = app.canvas.canvas.getBoundingClientRect();
            const frame = vue ? vue.getBoundingClientRect() : {
                left: canvas.left + (pos[0] + offset[0]) * scale, right: canvas.left + (pos[0] + size[0] + offset[0]) * scale,
                top: canvas.top + (pos[1] + offset[1]) * scale, bottom: canvas.top + (pos[1] + size[1] + offset[1]) * scale };
            const out = (inner, outer) => inner.left < outer.left - 1.5 || inner.right > outer.right + 1.5 || inner.top < outer.top - 1.5 || inner.bottom > outer.bottom + 1.5;
            const found = out(box, frame) ? [`${JSON.stringify(box)} out of ${JSON.stringify(frame)}`] : [];
            for (const part of element.querySelectorAll(".plot > svg, select, button, input, text, .legend > span")) {
                const b = part.getBoundingClientRect();
                if (b.width && !part.closest("[hidden]") && out(b, box)) found.push(part.outerHTML.slice(0, 120));
            }
            return found;
        })()""", name)  # fmt: skip


OPEN = "app.extensionManager.workflow.activeWorkflow.path"

# The picture of what is on the screen, compared until it is the same for a number of frames
STILL = """async frames => {
    const box = element => { const { x, y, width, height } = element.getBoundingClientRect(); return [x, y, width, height]; };
    const look = () => JSON.stringify([
        app.canvas.ds.scale, [...app.canvas.ds.offset], app.canvas.graph.nodes.map(({ id, pos, size }) => [id, [...pos], [...size]]),
        [...document.querySelectorAll(".circulation, [data-node-id]")].map(element => [box(element), getComputedStyle(element).backgroundColor]),
    ]);
    for (let before, same = 0; same < frames;) {
        await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve, 50)));
        const now = look();
        same = now === before ? same + 1 : 0;
        before = now;
    }
}"""

CONTRASTS = """() => {
    const pixel = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
    const linear = c => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    const luminance = colour => {
        pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1);
        const [r, g, b] = pixel.getImageData(0, 0, 1, 1).data;
        return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    };
    const contrast = (a, b) => { const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y); return (high + 0.05) / (low + 0.05); };
    const texts = {}, lines = {};
    const note = (kept, name, ratio) => { kept[name] = Math.min(kept[name] ?? 99, ratio); };
    for (const widget of document.querySelectorAll('.circulation')) {
        const panel = getComputedStyle(widget).backgroundColor;
        for (const element of widget.querySelectorAll('span, select, button, input, .note, .legend, .problem, .list')) {
            const style = getComputedStyle(element);
            const own = style.backgroundColor === 'rgba(0, 0, 0, 0)' ? panel : style.backgroundColor;
            note(texts, `${element.tagName} ${element.className} ${element.textContent.slice(0, 30)}`, contrast(style.color, own));
            if (style.borderTopStyle !== 'none') note(lines, `border of ${element.tagName}`, contrast(style.borderTopColor, panel));
        }
        for (const text of widget.querySelectorAll('svg text')) {
            const cell = text.hasAttribute('pointer-events') ? text.previousElementSibling.getAttribute('fill') : panel;
            note(texts, `svg ${text.textContent} on ${cell}`, contrast(text.getAttribute('fill'), cell));
        }
        for (const path of widget.querySelectorAll('path[data-stage], .legend path')) note(lines, path.getAttribute('stroke'), contrast(path.getAttribute('stroke'), panel));
        for (const path of widget.querySelectorAll('path[fill=none]:not([data-stage])')) note(lines, 'axis', contrast(path.getAttribute('stroke'), panel));
        const cells = [...widget.querySelectorAll('svg text[pointer-events]')].map(text => [text.textContent, text.previousElementSibling]);
        for (const [value, rect] of cells) {
            const edge = rect.getAttribute('stroke');
            note(lines, `cell ${value}`, contrast(edge === 'none' ? rect.getAttribute('fill') : edge, panel));
        }
    }
    return [texts, lines];
}"""
