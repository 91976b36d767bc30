"""What the browser tests of the app share: how a comparison is started, and how its end is seen."""

DONE = "#status [data-state=done]"
PATIENCE = 180_000  # milliseconds, for machines with much else to do


def start(page, **numbers):
    """Open the folded part, choose, and press Compare."""
    folded = page.get_by_role("button", name="Method, size, steps, seed")
    if not page.locator("#steps input").is_visible():
        folded.click()
    page.locator("#gate input").set_checked(False)  # the toy is too small to pay
    for name, value in numbers.items():
        page.locator(f"#{name} input").first.fill(str(value))  # a slider's number comes first
    page.get_by_role("button", name="Compare").click()
