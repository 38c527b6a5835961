"""ComfyUI as this pack uses it. No other folder of the engine imports it or knows its names for things."""
