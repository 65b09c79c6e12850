"""What a program does with OpenAI's client, in any of its versions; says as JSON what came of it.

Run in an environment that has the client and nothing of ours: URL, MODEL that draws, MODEL that
restores, IMAGE (a PNG).
"""

import asyncio
import base64
import hashlib
import json
import sys
from pathlib import Path

import openai


def digest(base64_or_url: str) -> str:
    data = base64.b64decode(base64_or_url.rpartition(",")[2])
    assert data[:4] == b"\x89PNG" or data[:3] == b"\xff\xd8\xff" or data[8:12] == b"WEBP", data[:12]
    return hashlib.sha256(data).hexdigest()


def refusal(call) -> list[object]:
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code, error.param]
    return []


def main(url: str, draws: str, restores: str, place: str) -> dict[str, object]:
    client = openai.OpenAI(base_url=url, api_key="any", max_retries=0)
    image, seeded = Path(place), {"seed": 7}
    images, said = client.images, {}
    said["models"] = sorted(model.id for model in client.models.list())
    said["model"] = client.models.retrieve(draws).id

    drawn = images.generate(model=draws, prompt="", n=2, extra_body=seeded)
    said["seeds"] = [each.seed for each in drawn.data]
    said["drawn"] = [digest(each.b64_json) for each in drawn.data]
    linked = images.generate(model=draws, prompt="", response_format="url", extra_body=seeded)
    said["url"] = digest(linked.data[0].url)
    lossy = images.generate(
        model=draws, prompt="", size="auto", quality="medium", user="someone", extra_body=seeded,
        output_format="webp", output_compression=80, background="opaque",
    )  # fmt: skip
    said["webp"] = digest(lossy.data[0].b64_json)

    with image.open("rb") as file:
        edited = images.edit(model=restores, prompt="", image=file)
    said["edited"] = digest(edited.data[0].b64_json)
    as_bytes = images.edit(model=restores, prompt="", image=image.read_bytes())
    said["bytes"] = digest(as_bytes.data[0].b64_json)
    tiled = images.edit(model=restores, prompt="", image=image, extra_body={"tile": 512})
    said["tiled"] = digest(tiled.data[0].b64_json)

    asked = {"model": draws, "prompt": "", "stream": True, "partial_images": 2}
    said["stream"] = [each.type for each in images.generate(**asked, extra_body=seeded)]
    *_, last = images.generate(**asked, extra_body=seeded)
    said["streamed"] = digest(last.b64_json)

    said["unknown model"] = refusal(lambda: images.generate(model="nil", prompt=""))
    said["prompt"] = refusal(lambda: images.generate(model=draws, prompt="a cat"))
    said["no image"] = refusal(lambda: images.edit(model=restores, prompt="", image=b"?"))
    varied = refusal(lambda: images.create_variation(model=restores, image=image))
    said["variation"] = varied[:2]

    async def alone() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
            ask = client.images.generate
            made = [ask(model=draws, prompt="", extra_body={"seed": each}) for each in (7, 8)]
            return [digest(each.data[0].b64_json) for each in await asyncio.gather(*made)]

    said["asynchronous"] = asyncio.run(alone())
    return said


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
