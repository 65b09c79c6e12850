"""The page at `/`, in a real browser: what a person would do there, and what the page may not."""

import hashlib
import io
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from live_server import file_of, made_key, pixels, served, until
from PIL import Image

from cluster.keys import KeyFile
from serving.page import FOLDER
from serving.settings import Settings

sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(not BROWSER, reason="there is no Chromium here")


@pytest.fixture(scope="module")
def site(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = [{"ref": "figures@production"}, {"ref": "denoiser"}, {"ref": "inpaint"}]
    jobs = {"storage": str(tmp_path_factory.mktemp("jobs")), "lease_s": 2}
    settings = Settings.validated({"registry": str(trained), "models": models, "jobs": jobs})
    with served(settings) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "sync_api.Browser", site: str) -> Iterator["sync_api.Page"]:
    """The page, opened; at the end it has asked nobody but its own server, and nothing failed."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if "Policy" in told.text else None)
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((site, "blob:", "data:")) else wrong.append(asked.url)
        ),
    )
    page.goto(site)
    page.locator("#do-sample").wait_for()
    yield page
    page.close()
    assert wrong == []


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(file_of(pixels(48, 64, 3)))
    return path


def downloaded(page: "sync_api.Page", name: str) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=name, exact=True).click()
    return Path(waiting.value.path()).read_bytes()


@in_a_browser
def test_where_a_key_is_asked_for_it_is_taken_for_the_tab(browser, trained, tmp_path):
    """And what is copied has a variable in its place."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="brings axe-core")
    file = tmp_path / "keys.json"
    key = made_key(file, "alice")
    models = [{"ref": "figures@production"}]
    settings = {"registry": str(trained), "models": models, "keys_file": str(file), "poll_s": 0.05}
    settings["jobs"] = {"storage": str(tmp_path / "jobs"), "lease_s": 2}
    with served(Settings.validated(settings)) as url:
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.goto(url)
        field = page.get_by_label("Key")
        field.wait_for()
        assert page.inner_text("#key-told") == "This server asks for a key."
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert field.evaluate("field => document.activeElement === field")
        field.fill("wrong")
        page.keyboard.press("Enter")
        page.locator("#key-told", has_text="this is no key").wait_for()
        field.fill(key)
        page.get_by_role("button", name="Use it").click()
        page.click("#do-sample")
        assert field.is_hidden()
        page.click("#go")
        page.locator("#again summary").click()
        line = page.locator("#line").text_content()
        assert '-H "Authorization: Bearer $GENIMG_API_KEY"' in line
        page.click("[data-as=python]")
        assert "os.environ['GENIMG_API_KEY']" in page.locator("#line").text_content()
        page.click("#later")  # a job is followed with the key as well
        page.get_by_role("button", name="Show sample").wait_for()
        assert page.text_content("#jobs-said") == "sample: done"
        assert key not in page.content()
        assert key not in page.url
        page.reload()  # which is the same tab
        page.locator("#do-sample").wait_for()
        KeyFile(str(file)).revoke("alice")
        until(lambda: httpx.get(f"{url}/v1/models", headers={"X-API-Key": key}).is_error)
        page.click("#go")
        field.wait_for()
        assert "was revoked" in page.inner_text("#key-told")
        page.close()


@in_a_browser
def test_a_grid_is_drawn_and_one_of_it_varied(page):
    page.click("#do-sample")
    page.fill("#option-n", "6")
    page.fill("#option-seed", "40")
    page.click("#go")
    page.locator(".grid button").nth(5).wait_for()
    names = [each.inner_text() for each in page.locator(".grid button").all()]
    assert names == [f"seed {40 + i}" for i in range(6)]
    page.locator(".grid button").nth(2).click()
    page.get_by_role("button", name="Vary it").click()
    page.locator("#history li").nth(1).wait_for()
    assert page.locator(".grid button").count() == 8
    page.click("#again summary")
    page.click("[data-as=genimg]")
    line = page.locator("#line").text_content()
    assert line.startswith("genimg vary -m figures@production ")
    assert line.endswith(f" --server {page.url.rstrip('/')}")
    page.locator("#history button").nth(1).click()  # the first answer, and its form
    assert page.locator(".grid button").count() == 6
    assert page.input_value("#option-n") == "6"


@in_a_browser
def test_a_photo_is_dropped_and_denoised_and_the_copied_line_does_the_same(page, photo, tmp_path):
    page.locator("#do-denoise[aria-current=true]").wait_for()  # what a photo is for comes first
    page.click("#do-sample")
    assert "to denoise it" in page.text_content("#empty")
    data = page.evaluate_handle(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "photo.png", { type: "image/png" }));
            return data;
        }""",
        list(photo.read_bytes()),
    )
    page.dispatch_event("main", "drop", {"dataTransfer": data})
    page.locator("#do-denoise[aria-current=true]").wait_for()
    # The form was made anew, and still says which file it has.
    assert page.eval_on_selector("#file-image", "field => field.files[0].name") == "photo.png"
    page.fill("#option-sigma", "25")
    page.click("#go")
    split = page.locator(".split")
    split.wait_for()
    assert page.locator("#empty").is_hidden()
    split.fill("10")
    assert (
        page.locator(".after").evaluate("made => made.style.clipPath") == "inset(0px 0px 0px 10%)"
    )
    image, slider = page.locator(".compare").bounding_box(), split.bounding_box()
    assert (image["x"], image["width"]) == (slider["x"], slider["width"])
    made = downloaded(page, "Download")
    assert Image.open(io.BytesIO(made)).size == (64, 48)
    page.click("#again summary")
    # As over plain HTTP from another machine, where browsers have no navigator.clipboard.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.click("#copy")
    page.locator("#copy", has_text="Copied").wait_for()
    assert page.evaluate("getSelection().toString()") == page.locator("#line").text_content()
    line = shlex.split(page.locator("#line").text_content())
    assert line[0] == "curl"
    if shutil.which("curl"):
        subprocess.run([*line, "-s", "--noproxy", "*"], cwd=tmp_path, check=True)
        again = (tmp_path / line[line.index("-o") + 1]).read_bytes()
        assert hashlib.sha256(again).digest() == hashlib.sha256(made).digest()
    page.click("[data-as=python]")
    assert 'data={"model": "denoiser", "sigma": "25"}' in page.locator("#line").text_content()


@in_a_browser
def test_a_mask_is_painted_and_inpainted(page, photo):
    page.click("#do-inpaint")
    page.set_input_files("#file-image", photo)
    canvas = page.locator(".canvas canvas")
    canvas.wait_for()
    page.locator("output", has_text="brush of").wait_for()
    box = canvas.bounding_box()

    def stroke(from_x: float, to_x: float, y: float) -> None:
        page.mouse.move(box["x"] + from_x * box["width"], box["y"] + y * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + to_x * box["width"], box["y"] + y * box["height"], steps=4)
        page.mouse.up()

    stroke(0.25, 0.75, 0.5)
    stroke(0.1, 0.9, 0.1)
    page.keyboard.press("Control+z")  # the second
    page.click("#go")
    page.locator(".compare").wait_for()
    mask = np.array(Image.open(io.BytesIO(downloaded(page, "Download the mask"))).convert("L"))
    assert mask.shape == (48, 64)
    assert mask[24, 18:46].min() > 250
    assert mask[:12].max() == 0
    before = np.array(Image.open(photo))
    after = np.array(Image.open(io.BytesIO(downloaded(page, "Download"))))
    assert (after[mask == 0] == before[mask == 0]).all()
    assert (after[mask > 250] != before[mask > 250]).any()


@in_a_browser
def test_it_is_painted_without_a_mouse(page, photo):
    page.click("#do-inpaint")
    page.set_input_files("#file-image", photo)
    page.locator("output", has_text="brush of").wait_for()
    canvas = page.locator(".canvas canvas")
    canvas.focus()
    for key in ("ArrowLeft", "Space", "ArrowUp", "Space"):
        page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    page.locator(".compare").wait_for()
    mask = np.array(Image.open(io.BytesIO(downloaded(page, "Download the mask"))).convert("L"))
    assert 0 < (mask > 127).mean() < 0.2


@in_a_browser
def test_what_is_refused_is_said_where_it_was_typed(page, photo):
    page.click("#do-denoise")
    page.click("#go")
    told = page.locator("#problem", has_text="image: give one")
    sync_api.expect(told).to_be_in_viewport()  # however long the form is
    page.set_input_files("#file-image", photo)
    page.fill("#option-sigma", "-3")
    page.locator("#form").evaluate("form => { form.noValidate = true; }")
    page.click("#go")
    page.locator("#option-sigma[aria-invalid=true]").wait_for()
    assert "sigma='-3'" in page.inner_text("#problem")
    page.fill("#option-sigma", "")
    page.click("#more summary")
    page.fill("#option-tile", "-5")
    page.click("#more summary")
    page.click("#go")
    page.locator("#option-tile[aria-invalid=true]").wait_for()  # which is in sight again
    assert page.locator("#history li").count() == 0


@in_a_browser
def test_a_model_that_reads_no_image_says_what_it_takes_instead(page, photo):
    page.click("#do-vary")
    assert "image: figures@production reads none; give latents" in page.inner_text("#files")
    assert page.locator("#file-image").count() == 0
    page.click("#go")
    page.locator("#option-of[aria-invalid=true]").wait_for()
    assert "of: neither an image nor latents are given" in page.inner_text("#problem")
    page.set_input_files("#file-latents", photo)  # which is no such file
    page.click("#go")
    page.locator("#file-latents[aria-invalid=true]").wait_for()
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
        }""",
        list(photo.read_bytes()),
    )
    page.locator("#do-denoise[aria-current=true]").wait_for()  # which takes it


@in_a_browser
def test_what_takes_long_is_cancelled(page, tmp_path):
    (tmp_path / "large.png").write_bytes(file_of(pixels(3000, 3000, 3)))
    page.click("#do-inpaint")
    page.set_input_files("#file-image", tmp_path / "large.png")
    page.locator("output", has_text="brush of").wait_for()
    page.locator(".canvas canvas").click()
    page.click("#more summary")
    page.check("#option-ensemble")
    page.click("#go")
    page.click("#cancel")
    page.locator("#progress", has_text="cancelled").wait_for()
    assert page.locator("#history li").count() == 0
    assert page.is_enabled("#go")


@in_a_browser
def test_a_job_is_cancelled_and_another_ends_in_the_background(page, site, tmp_path):
    (tmp_path / "large.png").write_bytes(file_of(pixels(3000, 3000, 3)))
    page.click("#do-inpaint")
    page.set_input_files("#file-image", tmp_path / "large.png")
    page.locator("output", has_text="brush of").wait_for()
    page.locator(".canvas canvas").click()
    page.click("#more summary")
    page.check("#option-ensemble")
    page.click("#later")
    large = page.locator("#jobs li", has_text="inpaint")
    large.get_by_text("inpaint: running").wait_for()
    page.click("#do-sample")
    page.fill("#option-n", "3")
    page.focus("#later")
    page.keyboard.press("Enter")
    small = page.locator("#jobs li", has_text="sample")
    small.get_by_text("sample: queued, 1. in the queue").wait_for()
    large.get_by_role("button", name="Cancel inpaint").focus()
    page.keyboard.press("Enter")
    large.get_by_text("inpaint: cancelled").wait_for()
    assert page.evaluate("document.activeElement.textContent").startswith("inpaint: cancelled")
    assert large.get_by_role("button").count() == 0
    small.get_by_role("button", name="Show sample").click()
    assert page.locator(".grid button").count() == 3
    assert page.text_content("#jobs-said") == "sample: done"
    assert page.locator("#history li").count() == 1
    states = {job["operation"]: job["state"] for job in httpx.get(f"{site}/v1/jobs").json()["data"]}
    assert states == {"inpaint": "cancelled", "sample": "done"}


@in_a_browser
def test_everybody_can_use_it(page, photo):
    """axe-core finds nothing, light and dark, nor does anything stick out on a phone."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="brings axe-core")
    page.click("#do-denoise")
    page.set_input_files("#file-image", photo)
    page.click("#later")
    page.get_by_role("button", name="Show denoise").wait_for()
    page.click("#go")
    page.locator(".compare").wait_for()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("scrollTo(0, 0)")
    page.click("#go")
    sync_api.expect(page.locator(".compare")).to_be_in_viewport()  # though it is below the form


def test_it_asks_nobody_else_and_holds_nothing_inline(client: httpx.Client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "style=" not in answer.text
    every = "".join(path.read_text() for path in FOLDER.iterdir())
    for name in (path.name for path in FOLDER.iterdir() if path.suffix != ".html"):
        assert re.search(rf'"(\./)?{name}"', every), f"nothing asks for {name}"
        assert client.get(f"/{name}").text == (FOLDER / name).read_text()
    assert "http://" not in every
    assert "https://" not in every
    assert client.head("/").status_code == 200
