WEB_DIRECTORY = "./js"


async def comfy_entrypoint():
    from .nodes import CirculationExtension

    return CirculationExtension()
