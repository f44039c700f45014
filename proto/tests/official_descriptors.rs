//! Our `apache.rocketmq.v2` is the one that the official clients speak: every message, field,
//! number, type, label, enum value and RPC, compared with what the official Python client carries.
//!
//! Needs that client: see [`HOW_TO_INSTALL`].

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::Command,
};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MessageOptions, field_descriptor_proto::Label,
};

const HOW_TO_INSTALL: &str = "install the official client, for instance with \
    `python3 -m venv target/official-python && \
    target/official-python/bin/pip install rocketmq-python-client==5.1.2`, \
    and set MQTEST_PYTHON to that python";

const PACKAGE: &str = "apache.rocketmq.v2";

/// What we have and that client, which is not the newest, does not.
const NEWER_HERE: [&str; 5] = [
    "enum .apache.rocketmq.v2.Code, INVALID_CLIENT_PROPERTIES",
    "message .apache.rocketmq.v2.Settings, client_properties",
    "message .apache.rocketmq.v2.Settings.ClientPropertiesEntry",
    "message .apache.rocketmq.v2.Settings.ClientPropertiesEntry, key",
    "message .apache.rocketmq.v2.Settings.ClientPropertiesEntry, value",
];

/// Everything that a set of files defines: what it is, and how it looks on the wire.
type Definitions = BTreeMap<String, String>;

type Change = fn(&mut FileDescriptorProto);

#[test]
fn our_definitions_are_those_of_the_official_client() {
    let official = definitions(&official_files());
    let ours = definitions(&our_files());
    assert!(official.len() > 400, "only {} definitions: read the wrong files?", official.len());

    let problems = differences(&ours, &official);
    assert!(problems.is_empty(), "{} differences:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn a_difference_of_any_kind_is_noticed() {
    let ours = definitions(&our_files());
    let changes: [(&str, Change); 6] = [
        ("FilterExpression, expression: ", |f| f.message_type[0].field[1].number = Some(3)),
        ("FilterExpression, type: ", |f| f.message_type[0].field[0].set_label(Label::Repeated)),
        ("FilterExpression, type: ", |f| f.message_type[0].field[0].type_name = Some(".x".into())),
        ("RetryPolicy, exponential_backoff: ", |f| f.message_type[1].field[1].oneof_index = None),
        ("TransactionResolution, COMMIT: ", |f| f.enum_type[0].value[1].number = Some(7)),
        ("Resource, name: missing here", |f| f.message_type[4].field.truncate(1)),
    ];
    for (noticed, change) in changes {
        let mut files = our_files();
        change(files.iter_mut().find(|file| file.name().ends_with("definition.proto")).unwrap());
        let mut known: Definitions = ours.clone();
        NEWER_HERE.iter().for_each(|what| drop(known.remove(*what)));
        let problems = differences(&definitions(&files), &known);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(noticed), "{problems:?} should be about {noticed}");
    }
}

fn differences(ours: &Definitions, official: &Definitions) -> Vec<String> {
    let mut problems = Vec::new();
    for (what, theirs) in official {
        match ours.get(what) {
            Some(here) if here == theirs => {}
            Some(here) => problems.push(format!("{what}: {here} here, {theirs} there")),
            None => problems.push(format!("{what}: missing here")),
        }
    }
    let newer: BTreeSet<_> =
        ours.keys().filter(|what| !official.contains_key(*what)).map(String::as_str).collect();
    let expected = BTreeSet::from(NEWER_HERE);
    problems.extend(newer.difference(&expected).map(|what| format!("{what}: not there")));
    problems.extend(expected.difference(&newer).map(|what| format!("{what}: known there by now")));
    problems
}

fn our_files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    set.file.into_iter().filter(|file| file.package() == PACKAGE).collect()
}

fn official_files() -> Vec<FileDescriptorProto> {
    let python = env::var("MQTEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/official_descriptors.py");
    let output = Command::new(&python)
        .arg(script)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {python}: {error}; {HOW_TO_INSTALL}"));
    assert!(
        output.status.success(),
        "{python} cannot read the official client: {}; {HOW_TO_INSTALL}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let set = FileDescriptorSet::decode(output.stdout.as_slice()).unwrap();
    assert!(set.file.iter().all(|file| file.package() == PACKAGE));
    set.file
}

fn definitions(files: &[FileDescriptorProto]) -> Definitions {
    let mut all = Definitions::new();
    for file in files {
        assert_eq!(file.syntax(), "proto3");
        let scope = format!(".{}", file.package());
        file.message_type.iter().for_each(|message| add_message(&mut all, &scope, message));
        file.enum_type.iter().for_each(|one| add_enum(&mut all, &scope, one));
        for service in &file.service {
            for rpc in &service.method {
                let stream = |is: bool| if is { "stream " } else { "" };
                all.insert(
                    format!("service {scope}.{}, {}", service.name(), rpc.name()),
                    format!(
                        "{}{} to {}{}",
                        stream(rpc.client_streaming()),
                        rpc.input_type(),
                        stream(rpc.server_streaming()),
                        rpc.output_type()
                    ),
                );
            }
        }
    }
    all
}

fn add_message(all: &mut Definitions, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    let is_map_entry = message.options.as_ref().is_some_and(MessageOptions::map_entry);
    all.insert(format!("message {name}"), format!("map entry: {is_map_entry}"));
    for field in &message.field {
        all.insert(format!("message {name}, {}", field.name()), describe(message, field));
    }
    message.nested_type.iter().for_each(|nested| add_message(all, &name, nested));
    message.enum_type.iter().for_each(|one| add_enum(all, &name, one));
}

fn describe(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = match (field.label(), field.proto3_optional(), field.oneof_index) {
        (Label::Repeated, ..) => "repeated".to_owned(),
        (Label::Required, ..) => panic!("proto3 has no required fields"),
        (Label::Optional, true, _) => "optional".to_owned(),
        (Label::Optional, false, None) => "single".to_owned(),
        (Label::Optional, false, Some(at)) => {
            let at = usize::try_from(at).unwrap();
            format!("oneof {}", message.oneof_decl[at].name())
        }
    };
    format!("{label} {} {} = {}", field.r#type().as_str_name(), field.type_name(), field.number())
}

fn add_enum(all: &mut Definitions, scope: &str, one: &EnumDescriptorProto) {
    for value in &one.value {
        let what = format!("enum {scope}.{}, {}", one.name(), value.name());
        all.insert(what, value.number().to_string());
    }
}
