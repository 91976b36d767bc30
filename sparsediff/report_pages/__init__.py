"""Parts of the HTML report: pictures, charts, tables, style and script."""
