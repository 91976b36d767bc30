"""The comparison app (``sparsediff.ui``): dense and sparse side by side in the browser.

Gradio is imported by the functions that need it; the engine runs and is tested without.
"""

if __name__ == "ui":
    raise ImportError(
        "this is the source folder of sparsediff.ui; run outside the checkout or with `python -P`"
    )
