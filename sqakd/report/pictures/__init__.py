"""Pictures of the report: which numbers of the finished runs each chart shows, with its legend and caption."""
