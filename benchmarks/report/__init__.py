"""Reports to look at: a document model, its HTML and Markdown, statistics and pictures."""
