"""HTTP: the retriever behind a socket, and a page to look at it with. Needs the extra `server`."""
