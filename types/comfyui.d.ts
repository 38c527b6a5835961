// What js/ uses of ComfyUI's front end, in versions 1.32.9 to the newest: all of it, and nothing else. For tsc alone; not served.

interface Graph {
    id: string;
    nodes: GraphNode[];
}

interface Widget {
    name: string;
    value: any;
    hidden?: boolean;
    options: { hidden?: boolean };
    serialize?: boolean;
    computeSize?: (width?: number) => [number, number];
    computeLayoutSize?: unknown;
}

interface GraphNode {
    id: number | string; // a string from 1.49 on
    title: string;
    comfyClass: string;
    graph: Graph;
    subgraph?: Graph;
    size: [number, number];
    widgets: Widget[];
    properties: Record<string, any>;
    setProperty(name: string, value: unknown): void;
    computeSize(): [number, number];
    removeWidget(widget: Widget): void;
    setSize(size: [number, number]): void;
    setDirtyCanvas(foreground: boolean, background: boolean): void;
    findInputSlot(name: string): number;
    isInputConnected(slot: number): boolean;
    addDOMWidget(name: string, type: string, element: HTMLElement, options: WidgetOptions): Widget;
    onConfigure?(...args: unknown[]): unknown;
    onConnectionsChange?(...args: unknown[]): unknown;
}

interface WidgetOptions {
    margin: number;
    getMinHeight(): number;
    hideOnZoom: boolean;
    hideInPanel: boolean;
    serialize: boolean;
    getValue(): unknown;
    setValue(value: unknown): void;
}

interface Extension {
    name: string;
    init(): Promise<void>;
    setup(): void;
    nodeCreated(node: GraphNode): void;
    afterConfigureGraph(): void;
    onNodeOutputsUpdated(outputs: Record<string, Record<string, any[]>>): void;
    getNodeMenuItems(node: GraphNode): MenuItem[];
}

interface MenuItem {
    content: string;
    callback(): void;
}

declare const LiteGraph: {
    vueNodesMode?: boolean;
    ContextMenu: new (items: MenuItem[], options: { event: MouseEvent }) => unknown;
};

declare module "*/scripts/app.js" {
    export const app: {
        rootGraph: Graph;
        canvas: {
            graph: Graph;
            emitBeforeChange(): void;
            emitAfterChange(): void;
            processMouseWheel(event: WheelEvent): void;
            processMouseDown(event: PointerEvent): void;
            processMouseMove(event: PointerEvent): void;
            processMouseUp(event: PointerEvent): void;
        };
        extensionManager: { setting: { get(name: "Comfy.Locale"): string | undefined } };
        ui: { settings: { addEventListener(event: "Comfy.ColorPalette.change", listener: () => void): void } };
        registerExtension(extension: Extension): void;
    };
}

declare module "*/scripts/api.js" {
    export const api: {
        addEventListener(event: string, listener: (event: CustomEvent) => void): void;
        fetchApi(route: string): Promise<Response>;
        apiURL(route: string): string;
    };
}
