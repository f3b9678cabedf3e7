"""Items and users of a bundle: ids, columns, records and filters over them."""
