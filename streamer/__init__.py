"""The pipeline: cameras in, sightings over the bus, identities into the database."""
