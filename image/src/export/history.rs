//! Makes history and layers agree, and fills in times, as BuildKit's exporter does.

use crate::config::{HistoryEntry, ImageConfig, format_timestamp};
use crate::time::parse_rfc3339;

/// The comment of entries that the exporter adds for layers nobody accounted for.
const COMMENT: &str = "buildkit.exporter.image.v0";

/// What is known of a layer beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerNote {
    /// What made it, for a history entry when the config has none.
    pub description: String,
    /// When, in seconds since 1970; `None` counts as the time of the export.
    pub created: Option<i64>,
}

/// The time that exports write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportTime {
    /// `SOURCE_DATE_EPOCH`: nothing new is later than this. `None` keeps real times.
    pub epoch: Option<i64>,
    /// The time of the export, for what has no other.
    pub now: i64,
}

impl ExportTime {
    /// The time of the export as it is written.
    pub fn created(&self) -> Option<String> {
        format_timestamp(self.epoch.unwrap_or(self.now))
    }
}

/// Brings the history of a config in line with its layers and fills in all times. `notes` are the layers', lowest
/// first; `base` is the config of the base image, whose entries keep their times.
pub(crate) fn normalize(
    config: &mut ImageConfig,
    notes: &[LayerNote],
    layers: usize,
    base: Option<&ImageConfig>,
    time: ExportTime,
) {
    match_layers(&mut config.history, notes, layers);
    fill_times(&mut config.history, notes, time.now);
    if let Some(epoch) = time.epoch {
        clamp_times(&mut config.history, base, epoch);
    }
    let is_later = |text: &str, epoch: i64| parse_rfc3339(text).is_none_or(|instant| instant > (epoch, 0));
    match (&config.created, time.epoch) {
        (Some(created), Some(epoch)) if is_later(created, epoch) => config.created = format_timestamp(epoch),
        (Some(_), _) => {}
        (None, _) => config.created = config.history.iter().rev().find_map(|entry| entry.created.clone()),
    }
}

/// Marks surplus entries as empty, adds entries for surplus layers.
fn match_layers(history: &mut Vec<HistoryEntry>, notes: &[LayerNote], layers: usize) {
    let mut seen = 0;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        if seen < layers {
            seen += 1;
        } else {
            entry.empty_layer = true;
        }
    }
    for index in seen..layers {
        let description = notes
            .get(index)
            .map(|note| note.description.as_str())
            .unwrap_or_default();
        history.push(HistoryEntry {
            created_by: if description.is_empty() {
                "created by cbs"
            } else {
                description
            }
            .to_owned(),
            comment: COMMENT.to_owned(),
            ..HistoryEntry::default()
        });
    }
}

/// Layer entries take their layer's time; entries without a layer that of the new layer that follows, or else of the
/// last one before.
fn fill_times(history: &mut [HistoryEntry], notes: &[LayerNote], now: i64) {
    let layers = history.iter_mut().filter(|entry| !entry.empty_layer);
    for (layer, entry) in layers.enumerate() {
        if entry.created.is_none() {
            let seconds = notes.get(layer).and_then(|note| note.created).unwrap_or(now);
            entry.created = format_timestamp(seconds);
        }
    }
    // The first time behind an entry without one; without such a gap the last time.
    let gap = history.iter().position(|entry| entry.created.is_none());
    let mut created = match gap {
        None => return,
        Some(gap) => history[gap..]
            .iter()
            .find_map(|entry| entry.created.clone())
            .or_else(|| history[..gap].iter().rev().find_map(|entry| entry.created.clone())),
    };
    let mut is_behind_gap = false;
    for entry in history {
        match &entry.created {
            Some(_) if is_behind_gap => created.clone_from(&entry.created),
            Some(_) => {}
            None => {
                is_behind_gap = true;
                entry.created.clone_from(&created);
            }
        }
    }
}

/// Entries of the base stay; from the first other one on, nothing is later than the epoch.
fn clamp_times(history: &mut [HistoryEntry], base: Option<&ImageConfig>, epoch: i64) {
    let base = base.map(|base| base.history.as_slice()).unwrap_or_default();
    let kept = history.iter().zip(base).take_while(|(own, base)| own == base).count();
    for entry in &mut history[kept..] {
        let is_fine = entry
            .created
            .as_deref()
            .and_then(parse_rfc3339)
            .is_some_and(|instant| instant <= (epoch, 0));
        if !is_fine {
            entry.created = format_timestamp(epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name[@seconds]`, a leading `-` for an entry without layer.
    fn history(text: &str) -> Vec<HistoryEntry> {
        text.split_whitespace()
            .map(|word| {
                let (name, created) = match word.split_once('@') {
                    Some((name, seconds)) => (name, format_timestamp(seconds.parse().expect("seconds"))),
                    None => (word, None),
                };
                HistoryEntry {
                    created,
                    created_by: name.trim_start_matches('-').to_owned(),
                    empty_layer: name.starts_with('-'),
                    ..HistoryEntry::default()
                }
            })
            .collect()
    }

    fn show(history: &[HistoryEntry]) -> String {
        let words: Vec<_> = history
            .iter()
            .map(|entry| {
                let seconds = entry.created.as_deref().and_then(parse_rfc3339);
                let mark = if entry.empty_layer { "-" } else { "" };
                match seconds {
                    Some((seconds, _)) => format!("{mark}{}@{seconds}", entry.created_by.replace(' ', "_")),
                    None => format!("{mark}{}", entry.created_by),
                }
            })
            .collect();
        words.join(" ")
    }

    #[test]
    fn cases() {
        let notes = [
            LayerNote {
                description: "one".into(),
                created: Some(10),
            },
            LayerNote {
                description: String::new(),
                created: Some(20),
            },
        ];
        let cases = [
            // history, layers, epoch, base, what comes out, created
            ("a b", 2, None, "", "a@10 b@20", 20),
            ("-e a -f b -g", 2, None, "", "-e@10 a@10 -f@10 b@20 -g@20", 20),
            ("x@5 -e a", 2, None, "", "x@5 -e@20 a@20", 20),
            ("", 2, None, "", "one@10 created_by_cbs@20", 20),
            ("a b c", 2, None, "", "a@10 b@20 -c@20", 20),
            ("a b", 0, None, "", "-a -b", 0),
            ("a -e b", 2, Some(15), "", "a@10 -e@15 b@15", 15),
            ("x@30 y@40 a", 3, Some(15), "x@30 y@40", "x@30 y@40 a@15", 15),
            ("x@30 y@40 a", 3, Some(15), "x@30 z@40", "x@30 y@15 a@15", 15),
        ];
        for (text, layers, epoch, base, want, created) in cases {
            let mut config = ImageConfig {
                history: history(text),
                ..Default::default()
            };
            let base = ImageConfig {
                history: history(base),
                ..Default::default()
            };
            normalize(&mut config, &notes, layers, Some(&base), ExportTime { epoch, now: 99 });
            assert_eq!(show(&config.history), want, "{text:?} with {layers} layers");
            let seconds = config
                .created
                .as_deref()
                .and_then(parse_rfc3339)
                .map_or(0, |instant| instant.0);
            assert_eq!(seconds, created, "created of {text:?}");
        }
    }

    #[test]
    fn created_is_clamped_not_set() {
        for (created, epoch, want) in [(50, Some(15), 15), (5, Some(15), 5), (50, None, 50)] {
            let mut config = ImageConfig {
                created: format_timestamp(created),
                ..Default::default()
            };
            normalize(&mut config, &[], 0, None, ExportTime { epoch, now: 99 });
            assert_eq!(config.created, format_timestamp(want));
        }
    }
}
