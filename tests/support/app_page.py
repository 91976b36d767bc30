"""What the browser tests of the app share: how a comparison is started, and how its end is seen."""

DONE = "#status [data-state=done]"
PATIENCE = 180_000  # milliseconds, for machines with much else to do


def start(page, **numbers):
    """Open the folded part, choose, and press Compare."""
    if not page.locator("#steps input").is_visible():
        unfold(page)
    page.locator("#gate input").set_checked(False)  # the toy is too small to pay
    for name, value in numbers.items():
        page.locator(f"#{name} input").first.fill(str(value))  # a slider's number comes first
    page.get_by_role("button", name="Compare").click()


def unfold(page):
    """Open the folded settings and let them settle."""
    page.get_by_role("button", name="Method, size, steps, seed").click()
    settle(page, "#steps input")


def settle(page, newest):
    """Wait for a part that was just opened, of which `newest` is one, to have its values.

    Gradio puts folded parts and tabs into the page when they are opened, and their values a moment
    later. What a robot types within that moment, some milliseconds, is lost: once in 20 times on a busy
    machine.
    """
    page.locator(newest).wait_for()
    page.wait_for_timeout(300)
