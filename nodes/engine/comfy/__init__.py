"""ComfyUI as this pack uses it. Only this folder imports it and names its option keys; `families` names its classes."""
