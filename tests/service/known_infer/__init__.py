"""Known requests over HTTP, `service/rest/known_infer.py`: a file for each thing that must hold of them."""
