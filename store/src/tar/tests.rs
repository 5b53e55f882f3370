use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::diff::diff;
use crate::edit::{Edit, Owner, lookup};
use crate::testing::{any_tree, check, check_links, dump, layer, tree};
use crate::{BlobStore, Entry, MemoryStore, Metadata, Node, Sha256Digest, Timestamp, TreeDigest};

const OCI: WriteOptions = WriteOptions {
    clamp_mtime: None,
    made_mtime: None,
    whiteouts: Whiteouts::Oci,
};

fn options(whiteouts: Whiteouts) -> ReadOptions<'static> {
    ReadOptions {
        whiteouts,
        lower: None,
        attributes: Attributes::All,
    }
}

fn written(store: &MemoryStore, root: &TreeDigest) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(store, root, &mut bytes, &OCI).expect("write");
    bytes
}

fn read_bytes(store: &MemoryStore, bytes: &[u8], whiteouts: Whiteouts) -> Result<Unpacked, TarError> {
    read(store, &mut &bytes[..], &options(whiteouts))
}

/// An archive made by Python, whose library writes what the system's tar does not.
fn python(script: &str) -> Vec<u8> {
    let prelude = "import tarfile, io, sys\nout = io.BytesIO()\n\
        def add(t, name, type=tarfile.REGTYPE, data=b'', **kw):\n\
        \x20   ti = tarfile.TarInfo(name); ti.type = type; ti.size = len(data); ti.mode = 0o644\n\
        \x20   for k, v in kw.items(): setattr(ti, k, v)\n\
        \x20   t.addfile(ti, io.BytesIO(data))\n";
    let mut child = Command::new("python3")
        .args([
            "-c",
            &format!("{prelude}{script}\nsys.stdout.buffer.write(out.getvalue())"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(child.stdout.as_mut().expect("stdout"), &mut bytes).expect("read");
    assert!(child.wait().expect("wait").success());
    bytes
}

#[track_caller]
fn reads(script: &str, whiteouts: Whiteouts, want: &str) {
    let store = MemoryStore::default();
    let unpacked = read_bytes(&store, &python(script), whiteouts).expect("read");
    check(&store, &unpacked.tree, want);
}

#[test]
fn names_are_cleaned_confined_and_followed() {
    let script = "with tarfile.open(fileobj=out, mode='w', format=tarfile.PAX_FORMAT) as t:
        add(t, './', tarfile.DIRTYPE, mode=0o700)
        add(t, './a/../b/./f', data=b'1')
        add(t, '../../up', data=b'2')
        add(t, '/abs', data=b'3')
        add(t, 'real', tarfile.DIRTYPE, mode=0o755)
        add(t, 'lnk', tarfile.SYMTYPE, linkname='/real', mode=0o777)
        add(t, 'lnk/in', data=b'4')
        add(t, 'out', tarfile.SYMTYPE, linkname='../../../etc', mode=0o777)
        add(t, 'out/passwd', data=b'5')
        add(t, 'twice', data=b'6'); add(t, 'twice', data=b'7')
        add(t, 'swap', data=b'8'); add(t, 'swap', tarfile.DIRTYPE, mode=0o755); add(t, 'swap/x', data=b'9')
        add(t, 'real', tarfile.DIRTYPE, mode=0o711, mtime=5)";
    let want = "f abs =3\n d b\n f b/f =1\n d etc\n f etc/passwd =5\n l lnk ->/real\n l out ->../../../etc\n d real 711 @5\n f real/in =4\n d swap\n f swap/x =9\n f twice =7\n f up =2";
    reads(script, Whiteouts::Oci, want);
    reads(script, Whiteouts::Plain, want);
}

#[test]
fn kinds_numbers_and_names_of_all_formats() {
    let body = "
        long = 'd' * 120 + '/' + 'n' * 120
        add(t, long, data=b'long', mode=0o4755, uid=3000000, gid=4000000, mtime=2**34)
        add(t, 'l', tarfile.SYMTYPE, linkname='x' * 150, mode=0o777)
        add(t, 'hard', data=b'h', mode=0o600)
        add(t, 'hard2', tarfile.LNKTYPE, linkname='./hard', mode=0o644)
        add(t, 'c', tarfile.CHRTYPE, devmajor=1, devminor=5)
        add(t, 'b', tarfile.BLKTYPE, devmajor=8, devminor=1)
        add(t, 'p', tarfile.FIFOTYPE)";
    let (d, n) = ("d".repeat(120), "n".repeat(120));
    let want = format!(
        "b b 8,1\n c c 1,5\n d {d}\n f {d}/{n} 4755 3000000:4000000 @{} =long\n f hard =h\n h hard2 =>hard\n l l ->{}\n p p",
        1_i64 << 34,
        "x".repeat(150)
    );
    for format in ["PAX_FORMAT", "GNU_FORMAT"] {
        let script = format!("with tarfile.open(fileobj=out, mode='w', format=tarfile.{format}) as t:{body}");
        reads(&script, Whiteouts::Plain, &want);
    }
    let ustar = "with tarfile.open(fileobj=out, mode='w', format=tarfile.USTAR_FORMAT) as t:
        add(t, 'd' * 90 + '/' + 'n' * 90, data=b'split', pax_headers={})";
    reads(
        ustar,
        Whiteouts::Plain,
        &format!("d {}\n f {}/{} =split", &d[..90], &d[..90], &n[..90]),
    );
}

#[test]
fn pax_records() {
    let script = "with tarfile.open(fileobj=out, mode='w', format=tarfile.PAX_FORMAT, pax_headers={'path': 'global', 'comment': 'x'}) as t:
        add(t, 'cap', pax_headers={'SCHILY.xattr.security.capability': 'c', 'SCHILY.xattr.user.b': 'v', 'SCHILY.xattr.user.a': '',
            'SCHILY.xattr.trusted.overlay.opaque': 'y', 'SCHILY.xattr.user.overlay.redirect': '/x'})
        add(t, 'time', pax_headers={'mtime': '12.25'})
        add(t, 'past', pax_headers={'mtime': '-1.5'})
        add(t, 'ünï')";
    let store = MemoryStore::default();
    let unpacked = read_bytes(&store, &python(script), Whiteouts::Plain).expect("read");
    let entry = |name: &str| lookup(&store, &unpacked.tree, name).expect("look").expect(name);
    let names: Vec<Vec<u8>> = entry("cap").meta.xattrs.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [&b"security.capability"[..], b"user.a", b"user.b"]);
    let time = |seconds, nanos| Timestamp { seconds, nanos };
    assert_eq!(entry("time").meta.mtime, time(12, 250_000_000));
    assert_eq!(entry("past").meta.mtime, time(-2, 500_000_000));
    entry("ünï");
    let mut options = options(Whiteouts::Plain);
    options.attributes = Attributes::Capability;
    let some = read(&store, &mut &python(script)[..], &options).expect("read");
    let cap = lookup(&store, &some.tree, "cap").expect("look").expect("there");
    assert_eq!(cap.meta.xattrs, [(b"security.capability".to_vec(), b"c".to_vec())]);
}

#[test]
fn whiteouts_of_layers() {
    let script = "with tarfile.open(fileobj=out, mode='w') as t:
        add(t, 'd', tarfile.DIRTYPE, mode=0o755)
        add(t, 'd/.wh.gone'); add(t, '.wh.top')
        add(t, 'o', tarfile.DIRTYPE, mode=0o755); add(t, 'o/new', data=b'n'); add(t, 'o/.wh..wh..opq')
        add(t, '.wh.again'); add(t, 'again/f', data=b'1')
        add(t, 'late/f', data=b'2'); add(t, '.wh.late')
        add(t, 'file', data=b'3'); add(t, '.wh.file')
        add(t, '.wh.back'); add(t, 'back', data=b'4')
        add(t, '.wh..wh.plnk', tarfile.DIRTYPE); add(t, '.wh..wh.aufs')";
    reads(
        script,
        Whiteouts::Oci,
        "d again\n o again\n f again/f =1\n f back =4\n d d\n w d/gone\n f file =3\n d late\n o late\n f late/f =2\n d o\n o o\n f o/new =n\n w top",
    );
    let store = MemoryStore::default();
    let plain = read_bytes(&store, &python(script), Whiteouts::Plain).expect("read");
    assert!(dump(&store, &plain.tree).contains("f .wh.top ="));
    for bad in [".wh.", ".wh..", ".wh..."] {
        let script = format!("with tarfile.open(fileobj=out, mode='w') as t: add(t, 'd/{bad}')");
        assert!(matches!(
            read_bytes(&store, &python(&script), Whiteouts::Oci),
            Err(TarError::BadMember { .. })
        ));
    }
}

#[test]
fn sparse_files_of_all_formats() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("sparse");
    let mut file = std::fs::File::create(&path).expect("create");
    let mut want = vec![0_u8; 3 << 20];
    // More pieces than fit into one header of the old format.
    for piece in 0..40 {
        use std::os::unix::fs::FileExt;
        let offset = piece * 65_536 + 4096;
        file.write_all_at(b"data", offset).expect("write");
        want[offset as usize..][..4].copy_from_slice(b"data");
    }
    file.set_len(want.len() as u64).expect("size");
    file.flush().expect("flush");
    for format in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
        &["--format=pax"],
    ] {
        let output = Command::new("tar")
            .args(["-c", "-S"])
            .args(format)
            .arg("sparse")
            .current_dir(dir.path())
            .output()
            .expect("tar");
        assert!(output.status.success());
        assert!(output.stdout.len() < want.len() / 2, "the archive is sparse");
        let store = MemoryStore::default();
        let unpacked = read_bytes(&store, &output.stdout, Whiteouts::Plain).expect("read");
        let entry = lookup(&store, &unpacked.tree, "sparse").expect("look").expect("there");
        let Node::File { blob, size, .. } = entry.node else {
            panic!("{entry:?}")
        };
        assert_eq!(
            (size, blob),
            (want.len() as u64, crate::BlobDigest::of(&want)),
            "{format:?}"
        );
    }
}

#[test]
fn damage_is_named() {
    let good = python(
        "with tarfile.open(fileobj=out, mode='w') as t:\n  add(t, 'first', data=b'1' * 700); add(t, 'second', data=b'2' * 700)",
    );
    let fails = |bytes: &[u8]| {
        let result = read_bytes(&MemoryStore::default(), bytes, Whiteouts::Oci);
        result.expect_err("damaged").to_string()
    };
    assert_eq!(fails(&good[..700]), "cannot read archive after `/first`");
    assert_eq!(fails(&good[..512]), "cannot read archive after `/first`");
    assert_eq!(fails(&good[..1700]), "cannot read archive after `/first`");
    assert_eq!(fails(b"no archive"), "cannot read archive after `/`");
    let mut bytes = good.clone();
    bytes[3 * 512 + 5] ^= 1;
    assert_eq!(
        fails(&bytes),
        "damaged archive after `/first`: a header's checksum is wrong"
    );
    // Without the end mark it is whole all the same.
    assert!(read_bytes(&MemoryStore::default(), &good[..6 * 512], Whiteouts::Oci).is_ok());
    let script = |body: &str| python(&format!("with tarfile.open(fileobj=out, mode='w') as t:\n  {body}"));
    assert_eq!(
        fails(&script("add(t, 'l', tarfile.LNKTYPE, linkname='none')")),
        "`/l` is a hard link to `/none`, which is no file"
    );
    assert_eq!(
        fails(&script(
            "add(t, 'd', tarfile.DIRTYPE); add(t, 'l', tarfile.LNKTYPE, linkname='d')"
        )),
        "`/l` is a hard link to `/d`, which is no file"
    );
    assert_eq!(fails(&script("add(t, 'x', b'Q')")), "`/x` is of the unknown kind 'Q'");
    assert_eq!(fails(&script("add(t, 'f'); add(t, 'f/x')")), "`/f`: not a directory");
    assert_eq!(
        fails(&script("add(t, 'n' * 300)")),
        format!("`/{}`: a name is too long", "n".repeat(300))
    );
    assert!(fails(&script("add(t, 'd/' * 2100)")).ends_with("the path is too long"));
    assert!(fails(&script("add(t, 'a', tarfile.SYMTYPE, linkname='a'); add(t, 'a/x')")).contains("too many levels"));
}

#[test]
fn what_a_layer_leaves_to_its_lower_tree() {
    let store = MemoryStore::default();
    let lower = tree(&store, "d etc 700 3:3 @4\n f etc/old 640 =old\n l link ->etc");
    let bytes = python(
        "with tarfile.open(fileobj=out, mode='w') as t:
        add(t, 'etc/sub/new', data=b'n'); add(t, 'hard', tarfile.LNKTYPE, linkname='etc/old')",
    );
    let mut options = options(Whiteouts::Oci);
    options.lower = Some(&lower);
    let unpacked = read(&store, &mut &bytes[..], &options).expect("read");
    check(
        &store,
        &unpacked.tree,
        "d etc 700 3:3 @4\n d etc/sub\n f etc/sub/new =n\n f hard 640 =old",
    );
    assert_eq!(unpacked.implied, [b"etc/sub".to_vec()]);
    let script = "with tarfile.open(fileobj=out, mode='w') as t:
        add(t, 'a/f'); add(t, 'a', tarfile.DIRTYPE, mode=0o700); add(t, 'b/f')";
    let unpacked = read_bytes(&store, &python(script), Whiteouts::Oci).expect("read");
    assert_eq!(unpacked.implied, [b"b".to_vec()]);
}

#[test]
fn unpacks_onto_a_tree() {
    let store = MemoryStore::default();
    let base = tree(
        &store,
        "d app 700 5:5 @1\n f app/keep =k\n f app/file =old\n d app/dir 700 5:5\n f app/dir/in =in\n l app/real ->dir\n l app/out ->/etc\n f etc/passwd =p\n f app/was =",
    );
    let bytes = python(
        "with tarfile.open(fileobj=out, mode='w') as t:
        add(t, './', tarfile.DIRTYPE, mode=0o777)
        add(t, 'file', data=b'new', uid=7, gid=8)
        add(t, 'dir', tarfile.DIRTYPE, mode=0o711)
        add(t, 'real/through', data=b't')
        add(t, 'out/passwd', data=b'x')
        add(t, '../../etc/evil', data=b'e')
        add(t, 'was', tarfile.DIRTYPE, mode=0o755)
        add(t, '.wh.keep', data=b'w')
        add(t, 'n/m', data=b'm')
        add(t, 'h', tarfile.LNKTYPE, linkname='/file')",
    );
    let unpack_at = |path: &str, owner: Option<Owner>| {
        let mut edit = Edit::new(&store, &base);
        let options = UnpackOptions {
            owner,
            made: Timestamp { seconds: 9, nanos: 0 },
            attributes: Attributes::Capability,
        };
        unpack(&store, &mut edit, path, &mut &bytes[..], &options).map_err(|err| err.to_string())?;
        Ok::<_, String>(edit.commit().expect("commit"))
    };
    let result = unpack_at("/app", None).expect("unpack");
    check(
        &store,
        &result,
        "d app 700 5:5 @1\n f app/.wh.keep =w\n d app/dir 711\n f app/dir/in =in\n f app/dir/through =t
         d app/etc @9\n f app/etc/evil =e\n f app/etc/passwd =x\n f app/file =new\n h app/h =>app/file\n f app/keep =k
         d app/n @9\n f app/n/m =m\n l app/out ->/etc\n l app/real ->dir\n d app/was\n d etc\n f etc/passwd =p",
    );
    let result = unpack_at("/made/here", Some(Owner { uid: 1, gid: 2 })).expect("unpack");
    let made = lookup(&store, &result, "made").expect("look").expect("there");
    assert_eq!((made.meta.uid, made.meta.mtime.seconds), (1, 9));
    let file = lookup(&store, &result, "made/here/file").expect("look").expect("there");
    assert_eq!((file.meta.uid, file.meta.gid), (1, 2));
    assert_eq!(
        unpack_at("/etc/passwd", None).expect_err("file"),
        "`/etc/passwd`: not a directory"
    );
    assert!(is_archive(&mut &bytes[..]));
    assert!(!is_archive(&mut &b"plain text"[..]));
    assert!(!is_archive(&mut &[0_u8; 1024][..]));
}

/// These bytes are what others' digests are made of: they must never change.
#[test]
fn bytes_are_pinned() {
    let store = MemoryStore::default();
    let long = "n".repeat(120);
    let text = format!(
        "d d 1777 1:2 @1600000000\n f d/f 4755 @1700000000 =hello\n h d/g =>d/f\n l d/l ->f\n f d/{long} security.capability~cap =long
         f ünï 3000000:0 @17179869184 =x\n c dev/null 666 1,3\n b dev/sda 8,0\n p p\n w gone\n d o\n o o\n l lnk ->{long}"
    );
    let root = layer(&store, &text);
    let bytes = written(&store, &root);
    assert_eq!(bytes.len() % 512, 0);
    // The first header, field by field.
    assert_eq!(&bytes[..3], b"d/\0");
    assert_eq!(&bytes[100..108], b"0001777\0");
    assert_eq!(&bytes[108..124], b"0000001\x000000002\0");
    assert_eq!(&bytes[124..148], b"00000000000\x0013727410000\0");
    assert_eq!(&bytes[156..157], b"5");
    assert_eq!(&bytes[257..265], b"ustar\x0000");
    assert_eq!(&bytes[329..345], b"0000000\x000000000\0");
    let digest = Sha256Digest::of(&bytes).to_string();
    assert_eq!(
        digest,
        "12561922fb36e2b1011d4a9ce2f30a18f6f1f50b4858d1a4f94d2b93d78f75de"
    );
    // Empty layers are two empty blocks, as Docker knows them.
    let empty = written(&store, &layer(&store, ""));
    assert_eq!(
        Sha256Digest::of(&empty).to_string(),
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
    // The system's tar reads it.
    let mut child = Command::new("tar")
        .args(["-t", "-v", "--numeric-owner", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .env("TZ", "UTC")
        .spawn()
        .expect("tar");
    child.stdin.take().expect("stdin").write_all(&bytes).expect("write");
    let listing = String::from_utf8(child.wait_with_output().expect("tar").stdout).expect("text");
    for want in [
        "drwxrwxrwt 1/2               0 2020-09-13 12:26 d/",
        "hrwsr-xr-x 0/0               0 2023-11-14 22:13 d/g link to d/f",
        "crw-rw-rw- 0/0             1,3 1970-01-01 00:00 dev/null",
        "---------- 0/0               0 1970-01-01 00:00 .wh.gone",
        "---------- 0/0               0 1970-01-01 00:00 o/.wh..wh..opq",
    ] {
        assert!(listing.contains(want), "{want} in\n{listing}");
    }
}

#[test]
fn times_are_clamped_and_marks_need_layers() {
    let store = MemoryStore::default();
    let root = tree(&store, "f new @2000 =\n f old @500 =");
    let mut bytes = Vec::new();
    let clamped = WriteOptions {
        clamp_mtime: Some(1000),
        made_mtime: None,
        whiteouts: Whiteouts::Plain,
    };
    write(&store, &root, &mut bytes, &clamped).expect("write");
    let back = read_bytes(&store, &bytes, Whiteouts::Plain).expect("read");
    check(&store, &back.tree, "f new @1000 =\n f old @500 =");
    for marks in ["w gone", "d d\n o d"] {
        let layer = layer(&store, marks);
        let result = write(&store, &layer, &mut Vec::new(), &clamped);
        assert!(matches!(result, Err(TarError::BadMember { .. })), "{result:?}");
    }
    let mut edit = Edit::scratch(&store);
    let missing = Entry {
        name: Vec::new(),
        meta: Metadata::new(0o644),
        node: Node::File {
            blob: crate::BlobDigest::of(b"never stored"),
            size: 12,
            link: None,
        },
    };
    edit.put("f", &missing).expect("put");
    let root = edit.commit().expect("commit");
    let result = write(&store, &root, &mut Vec::new(), &OCI);
    assert!(
        matches!(result, Err(TarError::Store(crate::StoreError::MissingBlob(_)))),
        "{result:?}"
    );
}

#[test]
fn deep_trees_do_not_exhaust_the_stack() {
    let store = MemoryStore::default();
    let deep = "d/".repeat(2040);
    let bytes = python(&format!(
        "with tarfile.open(fileobj=out, mode='w') as t: add(t, '{deep}f', data=b'x'); add(t, '{deep}g', tarfile.LNKTYPE, linkname='{deep}f')"
    ));
    let layer = read_bytes(&store, &bytes, Whiteouts::Oci).expect("read").tree;
    let root = crate::diff::apply(&store, None, &layer).expect("apply");
    check_links(&store, &root);
    assert_eq!(diff(&store, None, &root).expect("diff"), layer);
    let again = read_bytes(&store, &written(&store, &layer), Whiteouts::Oci)
        .expect("read")
        .tree;
    assert_eq!(again, layer);
    let mut edit = Edit::scratch(&store);
    let options = crate::edit::CopyOptions {
        source: crate::edit::Selection {
            src: "/",
            dir_copy_contents: true,
            exclude: &["nothing/**/x".to_owned()],
            ..Default::default()
        },
        dest: "/copy",
        owner: Some(Owner { uid: 1, gid: 1 }),
        mode: None,
        timestamp: None,
        made: Timestamp::default(),
        create_dest_path: true,
        always_replace_existing_dest_paths: false,
    };
    edit.copy(&root, &options).expect("copy");
    edit.commit().expect("commit");
}

proptest! {
    #[test]
    fn trees_and_layers_survive(a in any_tree(), b in any_tree(), opaque in prop::collection::vec("[abc]", 0..2)) {
        let store = MemoryStore::default();
        let (a, b) = (tree(&store, &a), tree(&store, &b));
        let back = read_bytes(&store, &written(&store, &a), Whiteouts::Plain).expect("read");
        prop_assert_eq!(dump(&store, &back.tree), dump(&store, &a));
        prop_assert_eq!(back.tree, a);
        let changes = diff(&store, Some(&a), &b).expect("diff");
        let marks: String = opaque
            .iter()
            .filter(|name| dump(&store, &changes).lines().any(|line| line.starts_with(&format!("d {name}"))))
            .map(|name| format!("o {name}\n"))
            .collect();
        let changes = layer(&store, &(dump(&store, &changes) + &marks));
        let back = read_bytes(&store, &written(&store, &changes), Whiteouts::Oci).expect("read");
        prop_assert_eq!(dump(&store, &back.tree), dump(&store, &changes));
        prop_assert_eq!(back.tree, changes);
        prop_assert_eq!(back.implied, Vec::<Vec<u8>>::new());
    }

    #[test]
    fn no_bytes_make_it_panic(
        text in any_tree(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        resum in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let store = MemoryStore::default();
        let mut bytes = written(&store, &tree(&store, &text));
        let length = bytes.len();
        for (place, byte) in edits {
            let at = place.index(length);
            bytes[at] = byte;
            if resum {
                // A right checksum lets the damage through to what lies behind it.
                let start = at / 512 * 512;
                let block: &mut [u8; 512] = (&mut bytes[start..start + 512]).try_into().expect("a block");
                super::header::seal(block);
            }
        }
        bytes.truncate(cut.index(length * 2).max(512));
        for whiteouts in [Whiteouts::Oci, Whiteouts::Plain] {
            if let Ok(unpacked) = read_bytes(&store, &bytes, whiteouts) {
                check_links(&store, &unpacked.tree);
            }
        }
    }
}

#[test]
fn marks_of_nothing_are_refused_by_put_reader_contract() {
    // The unpacker tells reading errors by the action the stores give them.
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("broken"))
        }
    }
    let store = MemoryStore::default();
    let err = store.put_reader(&mut Broken).expect_err("broken");
    assert!(matches!(err, crate::StoreError::Io { action: "read", .. }), "{err:?}");
}
