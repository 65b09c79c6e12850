"""/metrics of several replicas in one answer."""

import asyncio
import pickle

from scraped import scraped

from serving.exposition import Counted, exposition, gathered
from serving.metrics import Meters


def counting(replica: str, images: int) -> Counted:
    meters = Meters()
    meters.for_model("m").batch.observe(images)
    meters.for_model("m").version.set(images)
    return pickle.loads(pickle.dumps(Counted(replica, meters.families())))


class Handle:
    """Of a deployment whose replicas answer with these."""

    deployment_name = "some"

    def __init__(self, *answers: object) -> None:
        self.answers = answers

    def broadcast(self, method: str) -> "Handle":
        assert method == "counted"
        return self

    async def results_async(self, timeout_s: float, return_exceptions: bool) -> list[object]:
        if not self.answers:
            raise RuntimeError("there is none")
        return list(self.answers)


def test_each_replica_has_its_series_under_one_head():
    text = exposition({"ingress": [counting("a", 1), counting("b", 2)], "m": [counting("c", 4)]})
    series = {
        (labels["deployment"], labels["replica"]): value
        for name, labels, value in scraped(text.decode())
        if name == "genimg_batch_images_sum"
    }
    assert series == {("ingress", "a"): 1, ("ingress", "b"): 2, ("m", "c"): 4}
    assert text.decode().count("# TYPE genimg_batch_images histogram") == 1
    one = {name for name, *_ in scraped(exposition({"a": [counting("a", 1)]}).decode())}
    meters = Meters()
    meters.for_model("m")
    assert one - {"genimg_replicas"} == {n for n, *_ in scraped(meters.exposition().decode())}


def test_what_does_not_answer_is_not_there_and_says_so():
    own = counting("a", 1)
    handles = {"ingress": Handle(counting("b", 2), RuntimeError("it has ended")), "m": Handle()}
    handles["asleep"] = Handle()
    text = asyncio.run(gathered(handles, own, "ingress", ["asleep", "ingress"])).decode()
    replicas = {
        labels["deployment"]: value
        for name, labels, value in scraped(text)
        if name == "genimg_replicas"
    }
    assert replicas == {"ingress": 2, "m": 0}  # whoever asks is one
