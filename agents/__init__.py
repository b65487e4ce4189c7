"""The Faust workers: the only importer of Faust."""
