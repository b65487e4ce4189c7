"""GraphQL over Starlette: the only importer of Ariadne, Starlette and uvicorn."""
