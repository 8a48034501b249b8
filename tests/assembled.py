"""The parts and the trainer of a configuration, as the command makes them."""

from smm_lightning.training.assembly import build, build_all, build_trainer, plan


def assemble(cfg):
    return plan(cfg).carry_out()


def trainer_of(cfg, callbacks=()):
    callbacks = [*callbacks, *build_all(cfg.get("callbacks"), "callbacks")]
    return build_trainer(cfg.trainer, build(cfg.backbone, "backbone"), callbacks, [])
