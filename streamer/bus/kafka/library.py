"""The names of kafka-python that this folder uses; the library is imported here, once."""

from __future__ import annotations

import logging
import warnings

with warnings.catch_warnings():
    # It reads its schemas by a call that Python 3.11 deprecates, and 3.13 takes back into favour.
    warnings.filterwarnings("ignore", message="(read|open)_text is deprecated", category=DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.consumer.subscription_state import ConsumerRebalanceListener
    from kafka.errors import KafkaError, MessageSizeTooLargeError, TopicAlreadyExistsError
    from kafka.net.compat import KafkaNetClient
    from kafka.structs import OffsetAndMetadata

__all__ = [
    "ConsumerRebalanceListener",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaError",
    "KafkaNetClient",
    "KafkaProducer",
    "MessageSizeTooLargeError",
    "OffsetAndMetadata",
    "TopicAlreadyExistsError",
    "TopicPartition",
]

# It logs a line for every attempt to reach a broker, several a second, and at DEBUG all settings with the password.
logging.getLogger("kafka").setLevel(logging.CRITICAL)
