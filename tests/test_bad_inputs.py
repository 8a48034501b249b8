"""What a user may type by mistake: a line for each problem, exit 2, nothing read, nothing left.

All in one process, through the real command; tests/test_cli.py runs some as programs.
"""

import re
import shlex

import pytest
from hydra.core.global_hydra import GlobalHydra

import smm_lightning.__main__ as command

SMALL = ("backbone=tiny", "trainer=cpu", "dataset.train_images=100", "dataset.test_images=50")
SMALL = (*SMALL, "dataset.batch_size=20", "epochs=1", "threads=1")

# What is typed, and the fields that the lines begin with.
KNOWN_MISTAKES = """
    epochs=1.5 -> epochs
    epochs=nan -> epochs
    epochs=true -> epochs
    seed=true -> seed
    seed=SEED_OF_400_DIGITS -> seed
    threads=abc -> threads
    threads=0 -> threads
    threads=-1 -> threads
    dataset.batch_size=1.5 -> dataset.batch_size
    dataset.subset_seed=-1 -> dataset.subset_seed
    dataset.build_workers=-2 -> dataset.build_workers
    stall_minutes=1e300 -> stall_minutes
    backbone.image_size=100000 -> backbone.image_size
    method.width=1000000000 -> method.width
    trainer.deterministic=maybe -> trainer.deterministic
    force=maybe -> force
    force=2 -> force
    logger=wandb logger.wandb.mode=onlin -> logger.wandb.mode
    trainer.accelerator=warp -> trainer
    trainer.devices=abc -> trainer
    trainer.devices=0 -> trainer
    objective=nope -> objective
    objective=run_name -> objective
    trainer.check_val_every_n_epoch=0 -> trainer.check_val_every_n_epoch
    +trainer.limit_test_batches=0 -> trainer.limit_test_batches
    trainer.fast_dev_run=-1 -> trainer.fast_dev_run
    trainer.max_time=00:00:00:00 -> trainer.max_time
    trainer.max_epochs=7 -> trainer.max_epochs
    optimizer=adamm -> optimizer
    optimizer.groups.pattern=3 -> optimizer.groups.pattern
    ~trainer -> trainer
    backbone=null -> backbone
    mapping=null -> mapping
    +callbacks.best.monitor=x -> callbacks.best.monitor
    callbacks.best.monitor=x -> callbacks.best.monitor
    callbacks.last.every_n_steps=0 -> callbacks.last.every_n_steps
    +foo.bar=1 -> foo
    dataset=cifar10 'paths.data=${oc.env:NOPE}' -> configuration
    'seed=${epochs}' 'epochs=${seed}' -> configuration
    dataset.name=a/b -> dataset.name
    method.name='' -> method.name
    paths.run='' -> paths.run
    paths.root=A_FILE -> paths.run
    paths.root=/proc/nope -> paths.run
    ckpt_path=3 -> ckpt_path
    force=true ckpt_path=x.ckpt -> force
    dataset.val_fraction=1 -> dataset.val_fraction
    -m seed=1,1 -> seed
    -m 'method=glob(zzz*)' -> method
"""
OUR_OWN = """
    epochs=0 -> epochs
    epochs='' -> epochs
    epochs=[1] -> epochs
    epochs=null -> epochs
    seed=4294967296 -> seed
    seed=1e3 -> seed
    dataset.batch_size=1000 -> dataset.batch_size
    dataset.train_images=1.5 -> dataset.train_images
    dataset.train_images=3 -> dataset.train_images
    dataset.test_images=inf -> dataset.test_images
    dataset.shots=3 -> dataset.shots
    dataset.source=null -> dataset.source
    dataset=imagefolder -> dataset.source.root
    dataset=imagefolder dataset.source.root=/nope -> dataset.source.root
    OWN_IMAGES dataset.source.background=none -> dataset.source.background
    OWN_IMAGES 'dataset.source.groups="("' -> dataset.source.groups
    dataset=hub -> dataset.source.path
    dataset=cifar10 paths.data=/nope -> cifar10
    dataset=gtsrb dataset.source.training_set=finl -> dataset.source.training_set
    method.patch_size=64 -> method.patch_size
    method=only_mask method.start=full -> method.start
    method=smm_single_channel method.start=full -> method.start
    method.start=ful -> method.start
    mapping.temperature=0 -> mapping.temperature
    mapping.temperature=warm -> mapping.temperature
    mapping=rlm mapping.temperature=nan -> mapping.temperature
    mapping.refit_until=0 -> mapping.refit_until
    mapping=rlm +mapping.refit_until=2 -> mapping
    method.patch_size=16 method.layers=3 -> method.patch_size
    method.learn_pattern=2 -> method.learn_pattern
    +method.mean=[0.5] -> method.mean
    +method.frame=0.1 -> method.frame
    method=narrow method.frame=0.6 -> method.frame
    method=narrow method.frame=0.001 -> method.frame
    method=pad dataset.native_size=64 -> dataset.native_size
    method._target_=3 -> method._target_
    optimizer.groups.pattern.lr=nan -> optimizer.groups.pattern.lr
    optimizer.groups.pattern.lr=fast -> optimizer.groups.pattern.lr
    ~optimizer.groups.mask_generator -> optimizer.groups
    optimizer.algorithm._target_=torch.optim.Nope -> optimizer.algorithm._target_
    +optimizer.algorithm.betas=[2,3] -> optimizer.algorithm
    scheduler=cosinus -> scheduler
    scheduler.milestones=[1] -> scheduler.milestones
    scheduler.milestones=[0.5] -> scheduler.milestones
    scheduler.warmup_epochs=-1 -> scheduler.warmup_epochs
    loss.class_weights=[1,2] -> loss.class_weights
    loss.class_weights=[1,-1] -> loss.class_weights
    trainer.precision=16 -> trainer.precision
    trainer.gradient_clip_val=-1 -> trainer.gradient_clip_val
    trainer.strategy=nope -> trainer
    trainer.max_time=soon -> trainer.max_time
    +trainer.foo=1 -> trainer.foo
    +trainer.val_check_interval=0 -> trainer.val_check_interval
    +trainer.logger=true -> trainer.logger
    +backbone.weights=nope.pt -> backbone.weights
    backbone.classes=5 -> mapping
    backbone=timm backbone.model=nope -> backbone.model
    backbone=timm backbone.model=levit_128s backbone.image_size=192 -> backbone.image_size
    backbone=timm backbone.model=vit_small_patch14_dinov2 -> backbone.model
    paths.root=~/runs -> paths.root=~/runs
    backbone=resnet18 backbone.weights_name=V9 -> backbone.weights_name
    backbone._target_=nope.Nope -> backbone._target_
    +callbacks.x=3 -> callbacks.x
    +callbacks.x._target_=lightning.pytorch.callbacks.EarlyStopping -> callbacks.x.monitor
    +callbacks.x._target_=torch.nn.ReLU -> callbacks.x
    logger=[csv,nope] -> logger
    logger=csv,wandb -> configuration
    paths.root=null -> paths.root
    tags=3 -> tags
    vars=3 -> vars
    ckpt_path=nowhere -> ckpt_path
    ckpt_path=A_FILE -> ckpt_path
    objective=test/acc_last -> objective
    hydra.mode=NOPE -> hydra.mode
    +method._partial_=true -> method
    +method._recursive_=false -> method._recursive_
    mapping._target_=builtins.dict -> mapping
    dataset.source._target_=torch.nn.ReLU -> dataset.source
    +dataset.source._partial_=true -> dataset.source
    optimizer.groups.pattern._target_=builtins.dict -> optimizer.groups.pattern
    optimizer.algorithm._target_=torch.nn.Identity -> optimizer.algorithm
    +optimizer.algorithm.foreach=true -> optimizer.algorithm
    +optimizer.algorithm.lr=3 -> optimizer.algorithm.lr
    '+optimizer.groups.head={_target_: smm_lightning.training.Group, lr: 1}' -> optimizer.groups
    loss._target_=torch.nn.Identity -> loss
    ~loss +loss._target_=torch.nn.NLLLoss -> loss
    ~loss +loss._target_=torch.nn.CrossEntropyLoss +loss.reduction=sum -> loss
    ~loss +loss._target_=torch.nn.CrossEntropyLoss +loss.reduction=none -> loss
    ONE_STEP_CYCLE epochs=3 -> scheduler
    scheduler.epochs=7 -> scheduler.epochs
    mapping.refresh=never -> mapping.refresh
    trainer.limit_train_batches=0.0001 -> trainer
    trainer.gradient_clip_algorithm=value -> trainer.gradient_clip_algorithm
    +callbacks.x._target_=lightning.pytorch.callbacks.BatchSizeFinder -> callbacks
    +callbacks.x._target_=lightning.pytorch.callbacks.LearningRateMonitor -> trainer
    logger=csv logger.csv.save_dir=/proc/x -> logger
    logger=wandb logger.wandb.mode=offline +logger.wandb.nope=1 -> logger
    hydra.run.dir=/proc/x -> paths.run
    dataset=3 -> dataset
    vars.a=1 -> vars.a
    notes=??? -> notes
    -m hydra/sweeper=optuna hydra.sweeper.n_trials=0 seed=1,2 -> hydra.sweeper.n_trials
    --config-dir=BROKEN +experiment=broken -> BROKEN/experiment/broken.yaml
    --config-dir=BROKEN +experiment=latin -> configuration
    '=1' -> =1
    'a b' -> a b
"""


def rows(table):
    return [tuple(line.strip().rsplit(" -> ")) for line in table.strip().splitlines()]


@pytest.mark.parametrize(("typed", "field"), rows(KNOWN_MISTAKES) + rows(OUR_OWN))
def test_a_mistake_is_a_line(typed, field, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr("sys.argv", ["smm"])
    GlobalHydra.instance().clear()
    (tmp_path / "file").write_text("")
    for name, value in {
        "A_FILE": str(tmp_path / "file"),
        "SEED_OF_400_DIGITS": "9" * 400,
        "OWN_IMAGES": f"dataset=imagefolder dataset.source.root={tmp_path}",
        "BROKEN": str(tmp_path / "broken"),
        "ONE_STEP_CYCLE": "~scheduler +scheduler._target_=torch.optim.lr_scheduler.OneCycleLR "
        "+scheduler._partial_=true +scheduler.max_lr=0.1 +scheduler.total_steps=1",
    }.items():
        typed, field = typed.replace(name, value), field.replace(name, value)
    if "broken" in typed:
        (tmp_path / "broken/experiment").mkdir(parents=True)
        (tmp_path / "broken/experiment/broken.yaml").write_text("a: [1\nb: }")
        (tmp_path / "broken/experiment/latin.yaml").write_bytes("a: é".encode("latin-1"))
    words = shlex.split(typed)
    first = [word for word in words if word == "-m" or word.startswith("--")]
    arguments = [*first, *SMALL, *(word for word in words if word not in first)]
    with pytest.raises(SystemExit) as left:
        command.run("train", arguments)
    shown = capfd.readouterr()
    assert left.value.code == 2
    lines = [line for line in shown.err.splitlines() if line]
    assert lines
    for line in lines:
        assert re.match(rf"error: {re.escape(field)}(\.\w+)*: \S", line), line
    assert "Traceback" not in shown.out + shown.err
    kept = {"file", "image_cache", "broken"}  # an image cache stays: it is as good as before
    assert {path.name for path in tmp_path.iterdir() if not is_empty(path)} <= kept


def is_empty(path):
    return path.is_dir() and not any(inner.is_file() for inner in path.rglob("*"))
