"""The Gradio comparison app (``sparsediff.ui``); still to come."""

if __name__ == "ui":
    raise ImportError(
        "this is the source folder of sparsediff.ui; run outside the checkout or with `python -P`"
    )
