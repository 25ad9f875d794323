"""Use cases over the ports: from submit to promote and reconcile."""
