"""The bus over Kafka: the outbox is forwarded into a topic, and the matcher consumes it as a member of a group.

The only folder that names kafka-python. What shaped it: version 3.0.12's idempotent producer wedges for ever once a
batch that was sent passes its delivery time-out, so idempotence is off (sightings are told apart by their id
downstream) and a producer that fails to deliver is thrown away, never repaired.
"""
