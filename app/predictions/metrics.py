"""What the prediction path counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class PredictionMetrics:
    """Collectors of the prediction path in the gateway's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "shotline_predictions", "Predictions answered.", ("decision",), registry=registry
        )
        self.decode = Histogram(
            "shotline_prediction_decode_seconds",
            "From an image's bytes to its pixels.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue = Histogram(
            "shotline_prediction_queue_seconds",
            "An image's wait for a decoder and for the encoder.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.encode = Histogram(
            "shotline_prediction_encode_seconds",
            "The encoder's time for a batch.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "shotline_prediction_batch_images",
            "Images in a batch.",
            buckets=_IMAGES,
            registry=registry,
        )
        self.waiting = Gauge(
            "shotline_prediction_images_in_flight",
            "Images that are worked on or wait.",
            registry=registry,
        )
        self.shed = Counter(
            "shotline_predictions_shed", "Images refused because too many wait.", registry=registry
        )
        self.expired = Counter(
            "shotline_predictions_expired",
            "Images whose deadline passed before they were encoded.",
            registry=registry,
        )
        self.failed = Counter(
            "shotline_prediction_batches_failed",
            "Batches on which the encoder failed.",
            registry=registry,
        )
        self.records_waiting = Gauge(
            "shotline_prediction_records_waiting",
            "Predictions that are not yet in the database.",
            registry=registry,
        )
        self.records_lost = Counter(
            "shotline_prediction_records_lost",
            "Predictions that never came into the database.",
            registry=registry,
        )
        self.images_lost = Counter(
            "shotline_prediction_images_lost",
            "Images that were to be kept and were not.",
            registry=registry,
        )
        self.idempotency_lost = Counter(
            "shotline_prediction_idempotency_lost",
            "Requests whose Idempotency-Key could not be remembered.",
            registry=registry,
        )
        self.shadow = Counter(
            "shotline_shadow_answers",
            "Images that the candidate answered beside production; `same` decision and label.",
            ("same",),
            registry=registry,
        )
        self.shadow_failed = Counter(
            "shotline_shadow_failed",
            "Images that the candidate was to answer beside production and did not.",
            registry=registry,
        )
        self.models = Gauge(
            "shotline_models_resident", "Model versions in memory.", registry=registry
        )
        self.model_bytes = Gauge(
            "shotline_models_resident_bytes",
            "Class embeddings of the model versions in memory.",
            registry=registry,
        )
        self.loads = Counter(
            "shotline_models_loaded", "Model versions brought into memory.", registry=registry
        )
        self.evictions = Counter(
            "shotline_models_evicted",
            "Model versions that left memory to make room.",
            registry=registry,
        )
