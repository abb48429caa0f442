"""Vehicle re-identification across modalities: PORSCHE, its trainer and its embedder."""
