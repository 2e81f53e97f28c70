"""The report of a result, as page, data and picture, and the index of all reports of a folder."""
