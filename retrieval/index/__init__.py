"""The FAISS index: build, search, filter, tune, update, store."""
