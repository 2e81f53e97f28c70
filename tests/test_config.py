"""Settings: the sample, overrides, and errors that say what is wrong."""

from __future__ import annotations

import pathlib
import re

import pytest
import tomli

from dcnumd import routing
from dcnumd.cli import main
from dcnumd.config.file import SYSTEM_CONFIG, find_config, load_settings
from dcnumd.config.values import Settings, default_state_folder
from dcnumd.errors import ConfigError
from dcnumd.logic.job import SegmenterSpec

SAMPLE = pathlib.Path(__file__).parents[1] / "config.toml"


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a config file and loads it."""

    def load(text, *overrides):
        path = tmp_path / "site.toml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path, overrides)

    return load


def keys_of(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_sample_equals_the_defaults():
    """The sample config.toml at the top of the project says what holds without any config."""
    assert load_settings(SAMPLE) == Settings() == load_settings(None)


def test_sample_shows_every_key():
    """Whatever can be set is in the sample, as a value or, where the method decides, as a comment."""
    text = re.sub(r"^# (\w+ = .*)$", r"\1", SAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = set(keys_of(tomli.loads(text)))
    fixed = set(keys_of(tomli.loads(SAMPLE.read_text(encoding="utf-8"))))
    assert shown - fixed == {
        "pipeline.background.kernel_size",
        "pipeline.background.split_time",
        "pipeline.background.thresh_cleansing",
        "pipeline.background.frac_cleansing",
        "pipeline.background.offset_correction",
        "pipeline.segmenter.thresh",
        "pipeline.segmenter.model_file",
        "pipeline.segmenter.backend",
        "pipeline.segmenter.device",
        "pipeline.segmenter.mask.clear_border",
        "pipeline.segmenter.mask.fill_holes",
        "pipeline.segmenter.mask.closing_disk",
        "pipeline.gate.size_thresh_mask",
    }
    for key in ("watch.settle_seconds", "output.basin_strategy", "resources.nice", "retry.attempts", "log.file"):
        assert key in fixed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[watch]\nsetle_seconds = 3", "watch.setle_seconds: unknown key; did you mean watch.settle_seconds?"),
        ("[wacth]\nfolders = []", "wacth: unknown key; did you mean watch?"),
        ("[retry]\nzzz = 1", "retry.zzz: unknown key; allowed here are attempts, backoff_seconds"),
        ("[pipeline.feature]\nvolume = true", "pipeline.feature: unknown key; did you mean pipeline.features?"),
        ("[watch]\nsettle_seconds = '5'", "watch.settle_seconds: got '5'; a number is expected"),
        ("[watch]\nsettle_seconds = 0", "watch.settle_seconds: got 0.0; more than 0 is allowed"),
        ("[watch]\nsettle_seconds = inf", "watch.settle_seconds: got inf; a finite number is expected"),
        ("[output]\nsuffix = nan", "output.suffix: got nan; a text is expected"),
        ("[resources]\nnice = nan", "resources.nice: got nan; a whole number is expected"),
        ("[pipeline]\npixel_size = nan", "pipeline.pixel_size: got nan; a finite number is expected"),
        (f"[pipeline]\npixel_size = 1{'0' * 400}", "pipeline.pixel_size: got inf; a finite number is expected"),
        ("[report.limits]\nmax_flicker = inf", "report.limits.max_flicker: got inf; a finite number is expected"),
        (
            "[report.plot]\narea = 200",
            "report.plot.area: got 200; a list of two numbers, the smaller one first, is expected",
        ),
        (
            "[report.plot]\narea = [200]",
            "report.plot.area: got [200]; a list of two numbers, the smaller one first, is expected",
        ),
        (
            "[report.plot]\ndeform = [0.2, 0.2]",
            "report.plot.deform: got [0.2, 0.2]; a list of two numbers, the smaller one first, is expected",
        ),
        ("[report.plot]\narea = [0, 1e300]", "report.plot.area: got 1e+300; 100000.0 or less is allowed"),
        ("[report.plot]\ndeform = [0, inf]", "report.plot.deform: got inf; a finite number is expected"),
        ("[report.plot]\ndeform = [0, '1']", "report.plot.deform: got '1'; a number is expected"),
        (
            "[pipeline.background]\nsplit_time = -inf",
            "pipeline.background.split_time: got -inf; a finite number is expected",
        ),
        ("[pipeline.segmenter]\nthresh = nan", "pipeline.segmenter.thresh: got nan; a finite number is expected"),
        (
            "[pipeline.segmenter.mask]\nclosing_disk = nan",
            "pipeline.segmenter.mask.closing_disk: got nan; a finite number is expected",
        ),
        (
            "[pipeline.segmenter]\ncode = 'mine'\nlevels = [1.0, nan]\nother = {a = {b = 1.0}}",
            "pipeline.segmenter.levels: got nan; a finite number is expected",
        ),
        (
            "[[watch]]\nfolders = ['a']\n[[watch]]\nfolders = ['b']\npipeline.segmenter.thresh = inf",
            "watch[2].pipeline.segmenter.thresh: got inf; a finite number is expected",
        ),
        ("[watch]\nfolders = '/data'", "watch.folders: got '/data'; a list of texts is expected"),
        ("[watch]\nfolders = [1]", "watch.folders: got 1; a path as text is expected"),
        ("[watch]\nfolders = []", "watch.folders: got an empty list; at least one entry is needed"),
        ("[watch]\nrecursive = 1", "watch.recursive: got 1; true or false is expected"),
        ("[resources]\nnice = true", "resources.nice: got True; a whole number is expected"),
        ("[resources]\nnice = 20", "resources.nice: got 20; 19 or less is allowed"),
        ("[output]\nbasin_strategy = 'dig'", "output.basin_strategy: got 'dig'; allowed are 'tap', 'drain'"),
        ("[output]\nsuffix = ''", "output.suffix: got ''; a text that can be part of a file name is needed"),
        ("[output]\nsuffix = '../x'", "output.suffix: got '../x'; a text that can be part of a file name is needed"),
        ("[pipeline.segmenter]\nfallback = 3", "pipeline.segmenter.fallback: got 3; a text or a section is expected"),
        ("pipeline = 3", "pipeline: got 3; a section is expected"),
        ("[log]\nlevel = 'loud'", "log.level: got 'loud'; allowed are 'debug', 'info', 'warning', 'error'"),
    ],
)
def test_wrong_setting_names_file_key_and_cure(config, tmp_path, text, complaint):
    """One line: the file, the key, what was found, what is allowed."""
    with pytest.raises(ConfigError) as failure:
        config(text)
    assert failure.value.message == f"{tmp_path / 'site.toml'}: {complaint}"


def test_broken_toml_names_file_and_line(config):
    """What is no TOML at all is reported with its place."""
    with pytest.raises(ConfigError, match=r"site\.toml: not valid TOML: .*line 1"):
        config("[watch\n")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("settle_seconds = 1,5", "settle_seconds = 1,5: write a decimal point instead of the comma"),
        ("recursive = True  # x", "write true or false, in lower case"),
        ('folders = ["C:\\data"]', "write the path with / or in single quotes"),
        ("folders = [/srv/acquisition]", "put the text into quotes"),
        ("folders = C:/data", "put the text into quotes"),
        ('folders = ["a" "b"]', "write a comma between two values"),
        ("settle_seconds =", "a value is missing after the equals sign"),
        ("settle_seconds: 5", "write = between key and value instead of the colon"),
        ("settle_seconds 5", "write = between key and value"),
        ("[output", "the closing bracket is missing"),
        ('suffix = "_dcn', "the closing quote is missing"),
        ("settle_seconds = 5 s", "Expected newline or end of document after a statement"),
        ("[watch]", "Cannot declare"),
    ],
)
def test_common_slips_in_toml_are_explained(config, line, complaint):
    """The line is shown with its number, and with what to write; else with what the parser says."""
    with pytest.raises(ConfigError) as failure:
        config(f"[watch]\n{line}\n")
    assert f"site.toml: not valid TOML: line 2: {line.strip()}" in failure.value.message
    assert complaint in failure.value.message


def test_text_that_ends_too_early_is_explained(config):
    """There may be no line to show where the parser stopped."""
    with pytest.raises(ConfigError, match="not valid TOML: line 3: Unclosed array"):
        config("[watch]\nfolders = ['a'\n")


def test_all_mistakes_are_told_at_once(config, tmp_path, capsys):
    """Who mends a config needs to run `check` once, not once for each mistake; each line names file or override."""
    text = "[watch]\nsetle = 4\nrescan_seconds = 'x'\noutput = 3\n[report]\ngallery = 9999\n[pipline]\na = 1\n"
    with pytest.raises(ConfigError) as failure:
        config(text)
    keys = ["report.gallery", "pipline", "watch.setle", "watch.rescan_seconds", "watch.output"]
    assert all(f"site.toml: {key}: " in failure.value.message for key in keys)
    path = tmp_path / "site.toml"
    assert main(["check", "-c", str(path), "--set", "log.level=loud"]) == 2
    head, *lines = capsys.readouterr().err.splitlines()
    assert head == "Error: 6 mistakes in the config:"
    assert sorted(line.partition("site.toml: ")[2].partition(": ")[0] for line in lines) == sorted(["", *keys])
    assert "  --set log.level=loud: log.level: got 'loud'; allowed are 'debug', 'info', 'warning', 'error'" in lines


def test_override_wins_and_may_be_toml_or_text(config):
    """--set takes TOML values, and what is not TOML as text."""
    settings = config(
        "[pipeline.segmenter]\nthresh = -6\n[output]\nbasin_strategy = 'tap'",
        "pipeline.segmenter.thresh=-8",
        "output.basin_strategy=drain",
        "pipeline.segmenter.mask.clear_border=false",
        "watch.patterns=['*.rtdc', '*.h5']",
    )
    assert settings.pipeline.segmenter.keywords == {"thresh": -8}
    assert settings.pipeline.segmenter.mask == {"clear_border": False}
    assert settings.output.basin_strategy == "drain"
    assert settings.watch.patterns == ("*.rtdc", "*.h5")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("wach.folders=['a']", "--set wach.folders=['a']: wach: unknown key; did you mean watch?"),
        ("log.level=loud", "--set log.level=loud: log.level: got 'loud'; allowed are "),
        ("log.level", "--set log.level: expected key=value"),
        (
            "pipeline.segmenter.thresh=nan",
            "--set pipeline.segmenter.thresh=nan: pipeline.segmenter.thresh: got nan; a finite number is expected",
        ),
        ("watch.folders.x=1", "--set watch.folders.x=1: watch.folders: got a section; a list of texts is expected"),
    ],
)
def test_wrong_override_is_quoted(override, complaint):
    """An error in --set is blamed on that text, not on a file."""
    with pytest.raises(ConfigError) as failure:
        load_settings(None, [override])
    assert failure.value.message.startswith(complaint)


def test_method_takes_its_own_keywords(config):
    """Background and segmenter carry whatever keywords are given; the engine knows which are right."""
    settings = config("[pipeline.background]\ncode = 'rollmed'\nkernel_size = 50\nbatch_size = 500")
    job_settings = routing.pipeline_settings(settings)
    assert job_settings.background_code == "rollmed"
    assert job_settings.background_kwargs == {"kernel_size": 50, "batch_size": 500}
    assert job_settings.pixel_size is None
    assert job_settings.gate_kwargs == {"online_gates": False}


def test_relative_folder_counts_from_the_config_file(config, tmp_path):
    """A folder in a config means the same wherever the command is called."""
    settings = config("[watch]\nfolders = ['data/../in']\n[output]\nfolder = 'out'")
    assert settings.watch.folders == (tmp_path / "in",)
    assert settings.output.folder == tmp_path / "out"


def test_lookup_order(tmp_path, monkeypatch):
    """-c comes before $DCNUMD_CONFIG, that before ./config.toml, and that before /etc."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DCNUMD_CONFIG", raising=False)
    assert find_config(None) == (SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None)
    (tmp_path / "config.toml").touch()
    assert find_config(None) == tmp_path / "config.toml"
    (tmp_path / "env.toml").touch()
    monkeypatch.setenv("DCNUMD_CONFIG", "env.toml")
    assert find_config(None) == tmp_path / "env.toml"
    (tmp_path / "given.toml").touch()
    assert find_config(pathlib.Path("given.toml")) == tmp_path / "given.toml"
    with pytest.raises(ConfigError, match="no such config file"):
        find_config(pathlib.Path("missing.toml"))


def test_state_folder_follows_the_user(monkeypatch):
    """A service manager's folder comes first, then the system's for root, the XDG one for users."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/srv/someone/state")
    assert default_state_folder() == pathlib.Path("/srv/someone/state/dcnumd")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_state_folder() == pathlib.Path("/var/lib/dcnumd")
    monkeypatch.setenv("STATE_DIRECTORY", "/run/state")
    assert default_state_folder() == pathlib.Path("/run/state")


def test_result_lies_beside_the_measurement(config):
    """Without an output folder only the name changes."""
    settings = config("[watch]\nfolders = ['/in']\n[output]\nsuffix = '_new'")
    job = routing.job_for(settings, pathlib.Path("/in/a/M 1.rtdc"), "id")
    assert (job.path_in, job.path_out) == (pathlib.Path("/in/a/M 1.rtdc"), pathlib.Path("/in/a/M 1_new.rtdc"))
    assert job.job_id == "id"


def test_mirrored_trees_of_several_folders_do_not_meet(config):
    """Each watched folder has its own tree under its own name; equal names are refused."""
    settings = config("[watch]\nfolders = ['/x/one', '/x/two', '/x/two/inner']\n[output]\nfolder = '/out'")
    for path, out in [
        ("/x/one/a/M.rtdc", "/out/one/a/M_dcn.rtdc"),
        ("/x/two/a/M.rtdc", "/out/two/a/M_dcn.rtdc"),
        ("/x/two/inner/M.rtdc", "/out/inner/M_dcn.rtdc"),
        ("/elsewhere/M.rtdc", "/out/M_dcn.rtdc"),
    ]:
        assert routing.output_for(settings, pathlib.Path(path)) == pathlib.Path(out)
    with pytest.raises(ConfigError, match=r"output\.folder: the watched folders /x/data, /y/data would share"):
        config("[watch]\nfolders = ['/x/data', '/y/data']\n[output]\nfolder = '/out'")


def test_relative_path_becomes_absolute(tmp_path, monkeypatch):
    """Jobs carry absolute paths: a result's references are looked up from its own folder."""
    monkeypatch.chdir(tmp_path)
    job = routing.job_for(Settings(), pathlib.Path("data/M.rtdc"), "1")
    assert job.path_in == tmp_path / "data/M.rtdc"
    assert job.path_out == tmp_path / "data/M_dcn.rtdc"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("link/M.rtdc", "link/M.rtdc"),
        ("link/../M.rtdc", "far/M.rtdc"),
        ("link/a/../M.rtdc", "link/M.rtdc"),
        ("link/sub/../../M.rtdc", "far/M.rtdc"),
        ("near/link/../M.rtdc", "near/M.rtdc"),
        ("near/../link/./../deep/M.rtdc", "far/deep/M.rtdc"),
    ],
)
def test_job_is_about_the_file_that_the_system_means(path, expected, tmp_path):
    """What comes before ``..`` may be a symbolic link; other links stay, since rows of the ledger have them."""
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "near" / "link").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/deep")
    assert routing.job_for(Settings(), tmp_path / path, "").path_in == tmp_path / expected


def test_watch_tables_have_settings_of_their_own(config):
    """Several [[watch]] tables may say otherwise than the common sections, key by key."""
    settings = config(
        "[[watch]]\nfolders = ['/a']\n"
        "[[watch]]\nfolders = ['/b', '/a/inner']\npriority = 3\noutput.folder = '/out'\n"
        "pipeline.segmenter.thresh = -8\n"
        "[output]\nsuffix = '_x'\n[pipeline.segmenter]\nthresh = -4\n[pipeline.segmenter.mask]\nclosing_disk = 3\n",
    )
    first, second = (pathlib.Path(text) for text in ("/a/M.rtdc", "/a/inner/deep/M.rtdc"))
    assert settings.folders() == [pathlib.Path(text) for text in ("/a", "/b", "/a/inner")]
    assert routing.job_for(settings, first, "").path_out == pathlib.Path("/a/M_x.rtdc")
    assert routing.job_for(settings, second, "").path_out == pathlib.Path("/out/inner/deep/M_x.rtdc")
    assert routing.job_for(settings, first, "").settings.segmenter_kwargs == {"thresh": -4}
    assert routing.job_for(settings, second, "").settings.segmenter_kwargs == {"thresh": -8}
    assert routing.job_for(settings, second, "").settings.mask_kwargs == {"closing_disk": 3}
    assert [settings.group_of(path).watch.priority for path in (first, second)] == [0, 3]
    assert routing.watched_job_for(settings, second, "").trusted_folders == (*settings.folders(), pathlib.Path("/out"))
    assert routing.watched_job_for(settings, second, "").result_root == pathlib.Path("/out")


@pytest.mark.parametrize(
    ("own", "keywords"),
    [
        ("code = 'sparsemed'\nsplit_time = 2.0", {"kernel_size": 55, "split_time": 2.0}),
        ("split_time = 2.0", {"kernel_size": 55, "split_time": 2.0}),
        ("code = 'rollmed'\nbatch_size = 500", {"batch_size": 500}),
    ],
)
def test_keywords_are_shared_by_folders_with_the_same_method(config, own, keywords):
    """Keywords of the common section hold for a folder unless it has another method; the default one may be named."""
    text = f"[pipeline.background]\nkernel_size = 55\n[watch]\nfolders = ['/a']\n[watch.pipeline.background]\n{own}\n"
    assert routing.pipeline_settings(config(text)).background_kwargs == keywords


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", None),
        ("fallback = ''", None),
        ("fallback = 'thresh'", SegmenterSpec("thresh")),
        ("fallback = {code = 'thresh', thresh = -8}", SegmenterSpec("thresh", {"thresh": -8})),
        (
            "[pipeline.segmenter.fallback]\ncode = 'thresh'\nmask.closing_disk = 3",
            SegmenterSpec("thresh", {}, {"closing_disk": 3}),
        ),
    ],
)
def test_fallback_is_a_text_or_a_section(config, written, expected):
    """Most need only the name of the other segmenter."""
    assert routing.pipeline_settings(config(f"[pipeline.segmenter]\n{written}\n")).fallback == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("unet_0a1b2.dcnm", "unet_0a1b2.dcnm"),
        ("models/unet_0a1b2.dcnm", "{folder}/models/unet_0a1b2.dcnm"),
        ("/srv/models/unet_0a1b2.dcnm", "/srv/models/unet_0a1b2.dcnm"),
        ("~/unet_0a1b2.dcnm", "{home}/unet_0a1b2.dcnm"),
    ],
)
def test_file_of_a_model_is_a_path_or_a_name(config, tmp_path, written, expected):
    """Paths are relative to the config file, as those of folders are; names are left to the folders of models."""
    home = pathlib.Path.home()
    settings = config(
        f"[models]\nfolders = ['models']\n[pipeline.segmenter]\nmodel_file = '{written}'\n"
        f"fallback = {{code = 'mine', model_file = '{written}'}}\n"
    )
    pipeline = routing.pipeline_settings(settings)
    expected = expected.format(folder=tmp_path, home=home)
    assert pipeline.segmenter_kwargs == pipeline.fallback.kwargs == {"model_file": expected}
    assert pipeline.model_folders == (tmp_path / "models",)


def test_folders_may_have_a_fallback_of_their_own(config):
    """It is a setting of the pipeline like any other, also on the command line."""
    text = "[[watch]]\nfolders = ['/a']\n[[watch]]\nfolders = ['/b']\npipeline.segmenter.fallback = 'mine'\n"
    settings = config(text)
    assert [group.pipeline.segmenter.fallback.code for group in settings.groups] == ["", "mine"]
    overridden = config(text, "pipeline.segmenter.fallback=thresh")
    assert [group.pipeline.segmenter.fallback.code for group in overridden.groups] == ["thresh", "mine"]


def test_folder_that_is_listed_twice_is_watched_once(config):
    """The same folder may be written in two ways."""
    assert config("[watch]\nfolders = ['/a', '/b/../a']\n").folders() == [pathlib.Path("/a")]


def test_single_watch_table_may_override_too(config):
    """What stands in [watch] about the output holds for its folders."""
    settings = config("[watch]\nfolders = ['/a']\noutput.suffix = '_y'\n[output]\nbasin_strategy = 'drain'\n")
    assert settings.groups == (settings,)
    assert (settings.output.suffix, settings.output.basin_strategy) == ("_y", "drain")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[watch]]\nfolders=['/a']\n[[watch]]\nfolders=['/a']", "watch.folders: /a is watched twice"),
        ("[[watch]]\nfolders=['/a']\n[[watch]]\nsuffix='x'", "watch[2].suffix: unknown key"),
        ("[[watch]]\nfolders=['/a']\n[[watch]]\noutput.sufix='x'", "watch[2].output.sufix: unknown key"),
        ("[[watch]]\nfolders=['/a']\n[[watch]]\noutput=3", "watch[2].output: got 3; a section is expected"),
        ("watch = []", "watch: got an empty list"),
        ("watch = [1]", "watch: got 1; a section is expected"),
        (
            "[output]\nfolder='/o'\n[[watch]]\nfolders=['/a/x']\n[[watch]]\nfolders=['/b/x']",
            "output.folder: the watched folders /a/x, /b/x would share one tree of results",
        ),
        ("[pipeline]\npixel_size = -0.3", "pipeline.pixel_size: got -0.3; 0, or 1e-08 or more is allowed"),
        ("[pipeline]\npixel_size = 1e-9", "pipeline.pixel_size: got 1e-09; 0, or 1e-08 or more is allowed"),
        ("[pipeline]\npixel_size = nan", "pipeline.pixel_size: got nan; a finite number is expected"),
        ("[resources]\ncpus = [-1]", "resources.cpus: got -1; 0 or more is allowed"),
        ("[resources]\ncpus = ['a']", "resources.cpus: got 'a'; a whole number is expected"),
    ],
)
def test_wrong_watch_tables_are_named(config, text, message):
    """An error in one of several tables says in which."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        config(text)
