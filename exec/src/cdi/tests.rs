use std::fs;

use super::*;

const GPU: &str = r#"{
  "cdiVersion": "0.6.0", "kind": "vendor.com/gpu",
  "annotations": {"org.mobyproject.buildkit.device.class": "gpus"},
  "containerEdits": {"env": ["SPEC=1"], "hooks": [{"hookName": "createContainer", "path": "/bin/hook"}]},
  "devices": [
    {"name": "0", "containerEdits": {"env": ["GPU=0"], "deviceNodes": [{"path": "/dev/null"}], "mounts": null}},
    {"name": "1", "annotations": {"org.mobyproject.buildkit.device.autoallow": "true"},
     "containerEdits": {"additionalGids": [44], "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"]}],
       "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/y", "type": "c", "major": 1, "minor": 3, "fileMode": 384}]}}
  ]
}"#;

fn settings(folders: &[&Path]) -> DeviceSettings {
    DeviceSettings {
        folders: folders.iter().map(|folder| folder.to_path_buf()).collect(),
        ..DeviceSettings::default()
    }
}

fn catalog(files: &[(&str, &str)]) -> (tempfile::TempDir, Catalog) {
    let dir = tempfile::tempdir().expect("tempdir");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for folder in [&one, &two] {
        fs::create_dir(folder).expect("mkdir");
    }
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("write");
    }
    let catalog = Catalog::read(&settings(&[&one, &two, &dir.path().join("none")]));
    (dir, catalog)
}

#[test]
fn names_kinds_stars_and_classes_are_found() {
    let (_dir, catalog) = catalog(&[("one/gpu.json", GPU), ("one/notes.txt", "not a specification")]);
    let names = |wanted: &str| -> Vec<String> {
        let found = catalog.find(wanted).expect(wanted);
        found.iter().map(|device| device.name.clone()).collect()
    };
    assert_eq!(names("vendor.com/gpu=1"), ["vendor.com/gpu=1"]);
    assert_eq!(names("vendor.com/gpu"), ["vendor.com/gpu=0"]);
    for all in ["vendor.com/gpu=*", "gpus"] {
        assert_eq!(names(all), ["vendor.com/gpu=0", "vendor.com/gpu=1"], "{all}");
    }
    for none in ["vendor.com/gpu=2", "vendor.com/other", "", "=", "*", "gpu"] {
        assert!(catalog.find(none).is_err(), "{none}");
    }
}

#[test]
fn edits_of_a_specification_count_once() {
    let (_dir, catalog) = catalog(&[("one/gpu.json", GPU)]);
    let edits = edits(&catalog.find("gpus").expect("both"));
    assert_eq!(edits.env, ["SPEC=1", "GPU=0"]);
    assert_eq!(edits.hooks.len(), 1);
    assert_eq!(edits.groups, [44]);
    assert_eq!(edits.mounts[0].options, ["ro"]);
    assert_eq!(edits.device_nodes[1].host_path.as_deref(), Some(Path::new("/dev/y")));
    assert_eq!(edits.device_nodes[1].kind, Some(DeviceKindName::Character));
    assert_eq!(edits.device_nodes[1].file_mode, Some(0o600));
}

#[test]
fn grants_go_by_any_name_of_a_device() {
    let (_dir, catalog) = catalog(&[("one/gpu.json", GPU)]);
    let allowed = |wanted: &str, granted: &[&str]| {
        let granted = Granted::Named(granted.iter().map(ToString::to_string).collect());
        catalog.find(wanted).expect(wanted)[0].is_allowed(wanted, &granted)
    };
    assert!(!allowed("vendor.com/gpu=0", &[]));
    assert!(!allowed("vendor.com/gpu=0", &["vendor.com/gpu=1", "vendor.com"]));
    for name in ["vendor.com/gpu=0", "vendor.com/gpu", "gpus"] {
        assert!(allowed("vendor.com/gpu=0", &[name]), "{name}");
    }
    assert!(allowed("vendor.com/gpu=1", &[]), "it allows itself");
    assert!(catalog.find("gpus").expect("two")[0].is_allowed("gpus", &Granted::All));
}

#[test]
fn later_folders_win_and_twins_are_refused() {
    let other = GPU.replace("GPU=0", "GPU=other");
    let (_dir, found) = catalog(&[("one/gpu.json", GPU), ("two/gpu.json", &other)]);
    assert!(
        edits(&found.find("vendor.com/gpu").expect("it"))
            .env
            .contains(&"GPU=other".to_owned())
    );
    let (_dir, found) = catalog(&[("one/a.json", GPU), ("one/b.json", &other)]);
    let message = found.find("vendor.com/gpu=0").expect_err("which one?").to_string();
    assert!(
        message.contains("is in both") && message.contains("a.json"),
        "{message}"
    );
}

#[test]
fn broken_specifications_are_named_when_a_device_is_missing() {
    let broken = [
        ("one/a.json", "{"),
        ("one/b.json", "{\"kind\": \"nothing\", \"devices\": []}"),
        ("one/c.json", "{\"kind\": \"v.com/c\"}"),
        ("one/d.json", "{\"kind\": \"v.com/c\", \"devices\": [{\"name\": 7}]}"),
        (
            "one/e.json",
            "{\"kind\": \"v.com/ok\", \"devices\": [{\"name\": \"x\"}]}",
        ),
    ];
    let (_dir, catalog) = catalog(&broken);
    let message = catalog.find("v.com/c=x").expect_err("not there").to_string();
    for part in [
        "`v.com/c=x`",
        "they have v.com/ok=x",
        "a.json",
        "`nothing` is not VENDOR/CLASS",
        "c.json",
        "d.json",
    ] {
        assert!(message.contains(part), "no {part} in {message}");
    }
}
