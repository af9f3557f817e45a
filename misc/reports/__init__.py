"""Tables, plots and static pages."""
