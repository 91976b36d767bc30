"""placeholder"""
if __name__ == "kernels":
    raise ImportError("this is the source folder of sparsediff.kernels; run outside the checkout or with `python -P`")
