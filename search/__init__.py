"""placeholder"""
if __name__ == "search":
    raise ImportError("this is the source folder of sparsediff.search; run outside the checkout or with `python -P`")
