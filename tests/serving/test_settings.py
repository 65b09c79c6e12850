"""Settings: what is taken, and that what is wrong is named with its remedy."""

import pytest

from genimg.errors import InputError
from serving.settings import Settings


def test_defaults_serve_one_model_in_the_ingress():
    settings = Settings.validated({"models": [{"ref": "figures@production"}]})
    (model,) = settings.models
    assert (model.placement, model.max_batch_size, model.max_queue) == ("ingress", 16, 128)
    assert settings.registry == "registry"
    assert settings.limits.max_bytes == 50_000_000
    assert Settings.model_validate_json(settings.model_dump_json(exclude_unset=True)) == settings


def test_a_model_of_its_own_has_its_own_resources():
    scaled = {"min_replicas": 0, "max_replicas": 4}
    own = {"ref": "a", "placement": "own", "num_gpus": 0.5, "autoscaling": scaled}
    (model,) = Settings.validated({"models": [own]}).models
    assert model.num_gpus == 0.5
    assert model.autoscaling
    assert model.autoscaling.max_replicas == 4


A = {"ref": "a"}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "nothing is served; give models, or discover"),
        ({"models": []}, "nothing is served; give models, or discover"),
        ({"discover": ["gan-*@7"]},
         "discover.0.names='gan-*@7': behind the @ give an alias, as in gan-*@production"),
        ({"discover": ["a/*"]}, "discover.0.names='a/*': give a NAME with * and ? in it"),
        ({"discover": [{"names": "*", "max_que": 1}]},
         "unknown key 'discover.0.max_que'; did you mean 'max_queue'?"),
        ({"models": [A | {"canary": {"version": "a@b", "share": 0.1}}]},
         "models.0.canary.version='a@b': give a number, or an alias"),
        ({"models": [A | {"canary": {"version": 8, "share": 1.5}}]},
         "models.0.canary.share=1.5: input should be less than or equal to 1"),
        ({"models": [A | {"shadow": {"version": 8}, "resident": False}]},
         "models.0: a: shadow needs resident: true"),
        ({"models": [A], "memory": 0}, "memory=0: input should be greater than or equal to 1"),
        ({"models": [{"ref": "a", "placement": "own", "resident": False}]},
         "models.0: a: resident=false has no effect in replicas of its own; give "
         "autoscaling.min_replicas=0"),
        ({"models": [A], "pol_s": 1}, "unknown key 'pol_s'; did you mean 'poll_s'?"),
        ({"models": [{"ref": "a", "max_batch": 4}]},
         "unknown key 'models.0.max_batch'; did you mean 'max_batch_size'?"),
        ({"models": [A], "limits": {"max_byte": 4}},
         "unknown key 'limits.max_byte'; did you mean 'max_bytes'?"),
        ({"models": [A], "ingress": {"autoscaling": {"max_replica": 4}}},
         "unknown key 'ingress.autoscaling.max_replica'; did you mean 'max_replicas'?"),
        ({"models": [A, {"ref": "b"}, A]}, "models: a is given twice; leave one out"),
        ({"models": [{"ref": "a@b@c"}]},
         "models.0.ref='a@b@c': 'a@b@c': a reference reads NAME, NAME@ALIAS or NAME@7"),
        ({"models": [{"ref": "a", "max_queue": 0}]}, "models.0.max_queue=0: input should be"),
        ({"models": [{"ref": "a", "num_gpus": 1}]},
         "models.0: a: num_gpus has no effect in the ingress; set it under `ingress`, or "
         "placement='own'"),
        ({"models": [{"ref": "a", "placement": "gpu"}]},
         "models.0.placement='gpu': input should be 'ingress' or 'own'"),
        ({"models": [A], "ingress": {"num_cpus": 0.00001}},
         "ingress.num_cpus=1e-05: must have at most four decimals"),
        ({"models": [A], "ingress": {"num_gpus": 1.5}},
         "ingress.num_gpus=1.5: must be a fraction of one GPU or a whole number"),
        ({"models": [A], "poll_s": float("nan")}, "poll_s=nan: input should be a finite number"),
        ({"models": [A], "ingress": {"replicas": 2, "autoscaling": {}}},
         "ingress: replicas and autoscaling are both given; leave one of them out"),
        ({"models": [A], "ingress": {"autoscaling": {"target_megapixels": 0}}},
         "ingress.autoscaling.target_megapixels=0"),
        ({"models": [A], "ingress":
            {"autoscaling": {"target_megapixels": 2, "target_ongoing_requests": 2}}},
         "ingress.autoscaling: target_megapixels and target_ongoing_requests are both given;"),
        ({"models": [A], "ingress": {"autoscaling": {"min_replicas": 3}}},
         "ingress.autoscaling: min_replicas=3 is more than max_replicas=1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_remedy_in_one_line(tree, message):
    with pytest.raises(InputError) as caught:
        Settings.validated(tree)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_settings_do_not_change():
    settings = Settings.validated({"models": [A]})
    with pytest.raises(ValueError, match="frozen"):
        settings.poll_s = 1.0
