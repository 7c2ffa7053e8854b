//! One volume of a pod.

use std::collections::BTreeSet;

use super::super::downward::is_file_answerable;
use super::super::pod::{DownwardVolume, KeyedVolume, Pod, Refusal, Volume};
use super::{check_machine_path, check_number, is_label, is_subdomain, shown, unknown};

const HOST_PATH_KINDS: &[&str] = &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
/// Most files of one volume.
const FILES_MAX: usize = 4096;
/// Most sources of a projected volume.
const SOURCES_MAX: usize = 64;

impl Pod {
    pub(super) fn check_volumes(&self) -> Result<(), Refusal> {
        let mut names = BTreeSet::new();
        for volume in &self.spec.volumes {
            let field = format!("spec.volumes[{}]", shown(&volume.name));
            if !is_label(&volume.name) || !names.insert(volume.name.as_str()) {
                return Err(Refusal::invalid(field, "must have a name of its own that is a DNS label"));
            }
            if !volume.is_api_access() {
                self.check_volume(&field, volume)?;
            }
        }
        Ok(())
    }

    fn check_volume(&self, field: &str, volume: &Volume) -> Result<(), Refusal> {
        if let Some(kind) = unknown(&volume.rest, &[]) {
            return Err(Refusal::unsupported(format_args!("{field}.{kind}")));
        }
        let kinds = [
            volume.config_map.is_some(),
            volume.secret.is_some(),
            volume.empty_dir.is_some(),
            volume.host_path.is_some(),
            volume.downward_api.is_some(),
            volume.projected.is_some(),
        ];
        // Kubernetes reads a volume without a kind as an emptyDir.
        if kinds.iter().filter(|is| **is).count() > 1 {
            return Err(Refusal::invalid(field, "must have one kind only"));
        }
        for source in volume.config_map.iter().chain(&volume.secret) {
            check_keyed(field, source)?;
        }
        if let Some(dir) = &volume.empty_dir {
            if !["", "Memory"].contains(&dir.medium.as_str()) {
                return Err(Refusal::unsupported(format_args!("{field}.emptyDir.medium `{}`", shown(&dir.medium))));
            }
            volume.size_limit().map_err(|error| Refusal::invalid(format_args!("{field}.emptyDir.sizeLimit"), error))?;
        }
        if let Some(host) = &volume.host_path {
            check_machine_path(&format!("{field}.hostPath.path"), &host.path)?;
            if !HOST_PATH_KINDS.contains(&host.kind.as_str()) {
                return Err(Refusal::invalid(field, format_args!("has an unknown hostPath type `{}`", shown(&host.kind))));
            }
        }
        if let Some(downward) = &volume.downward_api {
            self.check_downward(&format!("{field}.downwardAPI"), downward)?;
        }
        let Some(projected) = &volume.projected else { return Ok(()) };
        let field = format!("{field}.projected");
        check_number(&format!("{field}.defaultMode"), projected.default_mode, 0, 0o777)?;
        if projected.sources.len() > SOURCES_MAX {
            return Err(Refusal::invalid(format_args!("{field}.sources"), format_args!("must have at most {SOURCES_MAX} entries")));
        }
        for (at, source) in projected.sources.iter().enumerate() {
            let field = format!("{field}.sources[{at}]");
            if let Some(kind) = unknown(&source.rest, &[]) {
                return Err(Refusal::unsupported(format_args!("{field}.{kind}")));
            }
            for keyed in source.config_map.iter().chain(&source.secret) {
                check_keyed(&field, keyed)?;
            }
            if let Some(downward) = &source.downward_api {
                self.check_downward(&format!("{field}.downwardAPI"), downward)?;
            }
        }
        Ok(())
    }

    fn check_downward(&self, field: &str, downward: &DownwardVolume) -> Result<(), Refusal> {
        check_number(&format!("{field}.defaultMode"), downward.default_mode, 0, 0o777)?;
        if downward.items.len() > FILES_MAX {
            return Err(Refusal::invalid(format_args!("{field}.items"), format_args!("must have at most {FILES_MAX} entries")));
        }
        for item in &downward.items {
            check_number(&format!("{field}.items.mode"), item.mode, 0, 0o777)?;
            match (&item.field_ref, &item.resource_field_ref) {
                (Some(reference), None) if is_file_answerable(&reference.field_path) => {}
                (Some(reference), None) => {
                    return Err(Refusal::unsupported(format_args!("{field}.items fieldRef `{}`", shown(&reference.field_path))));
                }
                (None, Some(reference)) => {
                    let field = format!("{field}.items");
                    if self.container(&reference.container_name).is_none() {
                        return Err(Refusal::invalid(field, "has a resourceFieldRef of no container of the pod"));
                    }
                    super::container::check_resource_ref(&field, reference)?;
                }
                _ => return Err(Refusal::invalid(format_args!("{field}.items"), "must have either fieldRef or resourceFieldRef")),
            }
        }
        Ok(())
    }
}

fn check_keyed(field: &str, source: &KeyedVolume) -> Result<(), Refusal> {
    if !is_subdomain(&source.name) {
        return Err(Refusal::invalid(field, "must name an object"));
    }
    check_number(&format!("{field}.defaultMode"), source.default_mode, 0, 0o777)?;
    if source.items.len() > FILES_MAX {
        return Err(Refusal::invalid(format_args!("{field}.items"), format_args!("must have at most {FILES_MAX} entries")));
    }
    source.items.iter().try_for_each(|item| check_number(&format!("{field}.items.mode"), item.mode, 0, 0o777))
}
