"""Reports on results: tables, plots and static pages."""
