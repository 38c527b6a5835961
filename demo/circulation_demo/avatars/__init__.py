"""The demo's own little node pack: it loads the avatar model. Not a part of the published pack."""


async def comfy_entrypoint():
    from .nodes import AvatarExtension

    return AvatarExtension()
