"""Who can be called: rows of data, how a model name finds its row, and which key goes where."""
