"""Settings files that are wrong in every way we know, by what is wrong with them."""

from __future__ import annotations

HOSTILE: dict[str, str] = {
    # not settings at all
    "empty file": "",
    "only comments": "# nothing\n# here\n",
    "only null": "~\n",
    "a number": "42\n",
    "a list": "- behaviors\n- Walker\n",
    "a text": "ppo-train\n",
    "no behaviours": "env_settings: {seed: 3}\n",
    "empty behaviours": "behaviors: {}\n",
    # YAML that cannot be parsed
    "tab as indentation": "behaviors:\n\tWalker: {}\n",
    "tab deeper down": "behaviors:\n  Walker:\n\t  max_steps: 5\n",
    "unclosed bracket": "behaviors: {A: {max_steps: 5}\n",
    "two documents": "behaviors: {A: {}}\n---\nbehaviors: {B: {}}\n",
    "unknown alias": "behaviors: {A: *nobody}\n",
    "alias within itself": "behaviors: &all {A: *all}\n",
    "control character": "behaviors: {A: {}} # \x07\n",
    "list as key": "behaviors: {? [a, b] : {}}\n",
    "merge key with a text": "behaviors: {A: {<<: text}}\n",
    "too deep": "behaviors: " + "[" * 60 + "]" * 60 + "\n",
    # structure
    "duplicate key": """
        behaviors:
          Walker:
            max_steps: 5
            time_horizon: 6
            max_steps: 7
        """,
    "duplicate behaviour": "behaviors:\n  Walker: {}\n  Walker: {max_steps: 3}\n",
    "behaviour without keys": "behaviors:\n  Walker:\n",
    "behaviour is a text": "behaviors: {Walker: ppo}\n",
    "behaviours are a list": "behaviors: [Walker]\n",
    "lost indentation": """
        behaviors:
          Walker:
            trainer_type: ppo
          hyperparameters:
            batch_size: 5
        """,
    "section is a text": "behaviors: {A: {}}\nenv_settings: builds/Walker\n",
    "hyperparameters without lines": "behaviors: {A: {trainer_type: ppo, hyperparameters: }}\n",
    "no signal at all": "behaviors: {A: {reward_signals: {}}}\n",
    "signal without lines": "behaviors: {A: {reward_signals: {extrinsic: }}}\n",
    "team in the name": "behaviors: {'Walker?team=1': {}}\n",
    "name leaves the results": "behaviors: {../Walker: {}}\n",
    # unknown keys
    "misspelt key": (
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {learning_rat: 3.0e-4}}}\n"
    ),
    "misspelt section": "behaviors: {A: {}}\nenv_setting: {seed: 1}\n",
    "key in the wrong mapping": "behaviors: {A: {batch_size: 5, gamma: 0.9, seed: 1}}\n",
    "dashes instead of underscores": "behaviors: {A: {max-steps: 5}}\n",
    "nothing like it": "behaviors: {A: {}}\ntorch_settings: {zzzzz: 5}\n",
    "key of SAC": "behaviors: {A: {trainer_type: ppo, hyperparameters: {tau: 0.005}}}\n",
    "misspelt signal": "behaviors: {A: {reward_signals: {extrinsick: {}}}}\n",
    "hyperparameters without trainer": "behaviors: {A: {hyperparameters: {batch_size: 5}}}\n",
    "lambda and lambd": (
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {lambda: 0.9, lambd: 0.8}}}\n"
    ),
    # values
    "part of a number for a whole one": "behaviors: {A: {time_horizon: 3.9}}\n",
    "text for a number": "behaviors: {A: {max_steps: many}}\n",
    "true for a number": "behaviors: {A: {max_steps: true}}\n",
    "number for a yes": "behaviors: {A: {even_checkpoints: 1}}\n",
    "null for a number": "behaviors: {A: {max_steps: null}}\n",
    "list for a number": "behaviors: {A: {max_steps: [1, 2]}}\n",
    "infinite number": "behaviors: {A: {reward_signals: {extrinsic: {strength: .inf}}}}\n",
    "number beyond all floats": "behaviors: {A: {max_steps: 1e999}}\n",
    "out of range": "behaviors: {A: {reward_signals: {extrinsic: {gamma: 1.01}}}}\n",
    "unknown word": "behaviors: {A: {network_settings: {vis_encode_type: resnett}}}\n",
    "unknown trainer": "behaviors: {A: {trainer_type: dqn, hyperparameters: {batch_size: 5}}}\n",
    "device that nobody has": "behaviors: {A: {}}\ntorch_settings: {device: gpu0}\n",
    "date for a number": "behaviors: {A: {max_steps: 2001-01-01}}\n",
    "impossible date": "behaviors: {A: {max_steps: 2001-13-45}}\n",
    "code for a number": "behaviors: {A: {max_steps: !!python/name:os.system ''}}\n",
    "code for a mapping": "behaviors: !!python/object/apply:os.system [ls]\n",
    "number of too many digits": f"behaviors: {{A: {{max_steps: {'9' * 5000}}}}}\n",
    "very long value": f"behaviors: {{A: {{max_steps: {'x' * 500}}}}}\n",
    "arguments in one text": "behaviors: {A: {}}\nenv_settings: {env_path: g, env_args: -a -b}\n",
    "run id that leaves the results": "behaviors: {A: {}}\ncheckpoint_settings: {run_id: ../x}\n",
    # trainer types
    "key of another trainer": (
        "behaviors: {A: {trainer_type: a2c, hyperparameters: {epsilon: 1}}}\n"
    ),
    "key of no trainer": "behaviors: {A: {trainer_type: trpo, hyperparameters: {max_k1: 1}}}\n",
    "shared critic of trpo": (
        "behaviors: {A: {trainer_type: trpo, hyperparameters: {shared_critic: true}}}\n"
    ),
    "two ways to look ahead": (
        "behaviors: {A: {trainer_type: a2c, hyperparameters: {n_steps: 5, lambd: 0.9}}}\n"
    ),
    "error of one step that looks further": (
        "behaviors: {A: {trainer_type: a2c, "
        "hyperparameters: {critic_target: td_error, n_steps: 5}}}\n"
    ),
    "rule for a weight that stays": (
        "behaviors: {A: {trainer_type: ppo_kl, hyperparameters: {kl_mode: fixed, kl_alpha: 3, "
        "kl_target: 0.1}}}\n"
    ),
    "weight that no factor raises": (
        "behaviors: {A: {trainer_type: ppo_kl, hyperparameters: {kl_coefficient: 0}}}\n"
    ),
    "critic that nobody asks": (
        "behaviors: {A: {trainer_type: reinforce, "
        "hyperparameters: {baseline: none, num_value_epoch: 9, normalize_advantages: true}}}\n"
    ),
    "bound that is not there": (
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {past_target_kl: freeze_policy}}}\n"
    ),
    "misspelt word of a trainer": (
        "behaviors: {A: {trainer_type: a2c, hyperparameters: {optimizer: rmsprob}}}\n"
    ),
    # contradictions
    "batch larger than buffer": """
        behaviors:
          Walker:
            trainer_type: ppo
            hyperparameters:
              buffer_size: 2048
              batch_size: 4096
        """,
    "batch larger than the default buffer": (
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {batch_size: 20480}}}\n"
    ),
    "editors to be counted": "behaviors: {A: {}}\nenv_settings: {num_envs: auto}\n",
    "simulators counted by the clock": (
        "behaviors: {A: {}}\nenv_settings: {env_path: Walker.exe, num_envs: auto}\n"
        "reproducible: true\n"
    ),
    "many editors": "behaviors: {A: {}}\nenv_settings: {num_envs: 2}\n",
    "arguments for a build": (
        "behaviors: {A: {}}\nenv_settings: {env_path: Walker.exe, env_kwargs: {a: 1}}\n"
    ),
    "a bound on what cannot be old": "behaviors: {A: {max_policy_lag: 2}}\n",
    "nothing is young enough": "behaviors: {A: {threaded: true, max_policy_lag: 0}}\n",
    "even checkpoints without an end": (
        "behaviors: {A: {even_checkpoints: true, keep_checkpoints: 0}}\n"
    ),
    "odd memory": "behaviors: {A: {network_settings: {memory: {memory_size: 127}}}}\n",
    "no memory": "behaviors: {A: {network_settings: {memory: {memory_size: 0}}}}\n",
    "memory is a switch": "behaviors: {A: {network_settings: {memory: true}}}\n",
    "sequence longer than the batch": """
        behaviors:
          A:
            trainer_type: ppo
            hyperparameters: {batch_size: 32, buffer_size: 320}
            network_settings: {memory: {sequence_length: 33}}
        """,
    # later
    "curiosity": "behaviors: {A: {reward_signals: {extrinsic: {}, curiosity: {strength: 0.02}}}}\n",
    "gail": "behaviors: {A: {reward_signals: {gail: {demo_path: a.demo}}}}\n",
    "rnd": "behaviors: {A: {reward_signals: {rnd: {strength: 0.01}}}}\n",
    "self-play": "behaviors: {A: {self_play: {}}}\n",
    "behavioral cloning": "behaviors: {A: {behavioral_cloning: {demo_path: a.demo}}}\n",
    "sac": "behaviors: {A: {trainer_type: sac, hyperparameters: {tau: 0.005}}}\n",
    "poca": "behaviors: {A: {trainer_type: poca, hyperparameters: {beta: 0.01}}}\n",
    "unknown sampler": """
        behaviors: {A: {}}
        environment_parameters: {mass: {sampler_type: beta, sampler_parameters: {}}}
        """,
    "sampler without parameters": (
        "behaviors: {A: {}}\nenvironment_parameters: {mass: {sampler_type: constant}}\n"
    ),
    "curriculum": """
        behaviors: {A: {}}
        environment_parameters:
          height:
            curriculum:
              - name: low
                value: 1
                completion_criteria: {behavior: A, threshold: 5}
              - {name: high, value: 2}
        """,
    "parameter is a text": "behaviors: {A: {}}\nenvironment_parameters: {mass: heavy}\n",
    # older dialects
    "ML-Agents 0.16": """
        default:
          trainer: ppo
          batch_size: many
        Walker:
          max_stepz: 2e6
        """,
    "ML-Agents 0.18": """
        behaviors: {A: {}}
        parameter_randomization: {mass: {sampler-type: uniform, min_value: 2}}
        """,
    "ML-Agents 0.18 with a curriculum": """
        behaviors: {A: {}}
        curriculum: {A: {thresholds: [1], parameters: {height: [1, 2]}}}
        """,
    "behaviours without the line above": "Walker:\n  trainer_type: ppo\n",
    "old memory keys": "behaviors: {A: {use_recurrent: true, sequence_length: 4, memory_size: 8}}",
    # many at once, in the order of the file
    "many problems": """
        env_settings: {num_envs: zero}
        behaviors:
          A:
            trainer_type: ppo
            hyperparameters: {batch_size: 5, buffer_size: 4, epsilon: 2}
            max_step: 5
        debug: maybe
        """,
    # more YAML that is none
    "missing colon": "behaviors:\n  A:\n    max_steps 5\n    time_horizon: 3\n",
    "two colons": "behaviors:\n  A:\n    max_steps: 5: 6\n",
    "unclosed quote": "behaviors:\n  A: {init_path: 'x}\n",
    "unknown escape": 'behaviors: {A: {init_path: "C:\\qux"}}\n',
    "escape of Windows' users": 'env_settings: {env_path: "C:\\Users\\me\\Walker.exe"}\n',
    "path of a relic": "behaviors: {A: {output_path: default}}\n",
    "sampler without its parameters": """
        behaviors: {A: {}}
        environment_parameters:
          mass: {sampler_type: uniform}
        """,
    "shifted key": "behaviors:\n  A:\n    max_steps: 5\n   time_horizon: 3\n",
    "key beside a list": "behaviors:\n  A: {}\n- B\n",
    "version of the future": "%YAML 3.0\n---\nbehaviors: {A: {}}\n",
    "unknown tag": "behaviors: {A: {max_steps: !steps 5}}\n",
    "unknown tag on a mapping": "behaviors: {A: !behavior {max_steps: 5}}\n",
    "bytes for a path": "behaviors: {A: {init_path: !!binary aGVsbG8=}}\n",
    "template left over": "behaviors: {A: {max_steps: {{ steps }}}}\n",
    "percent sign first": "behaviors: {A: {max_steps: %steps}}\n",
    "at sign first": "behaviors: {A: {init_path: @home}}\n",
    "JSON with a comment": '{"behaviors": {"A": {}} // none\n}\n',
    "conflict of a merge": "<<<<<<< HEAD\nbehaviors: {A: {}}\n=======\n",
    # more structure
    "behaviours are null": "behaviors:\n",
    "behaviours are a text": "behaviors: Walker\n",
    "list of behaviours": "behaviors:\n  - Walker:\n      max_steps: 5\n",
    "name is empty": "behaviors: {'': {}}\n",
    "name is absolute": "behaviors: {/Walker: {}}\n",
    "name with a backslash": "behaviors: {'..\\Walker': {}}\n",
    "defaults are a list": "default_settings: [ppo]\nbehaviors: {A: {}}\n",
    "network without lines": "behaviors: {A: {network_settings: }}\n",
    "signals without lines": "behaviors: {A: {reward_signals: }}\n",
    "signals are a list": "behaviors: {A: {reward_signals: [extrinsic]}}\n",
    "signal is a number": "behaviors: {A: {reward_signals: {extrinsic: 1.0}}}\n",
    "number as a section": "5: 6\nbehaviors: {A: {}}\n",
    "yes as a key": "behaviors: {A: {yes: 1}}\n",
    "empty key": "behaviors: {A: {'': 1}}\n",
    "very long key": f"behaviors: {{A: {{{'k' * 500}: 1}}}}\n",
    "key of several lines": 'behaviors: {A: {"max\\nsteps": 1}}\n',
    "duplicate deep down": (
        "behaviors: {A: {network_settings: {hidden_units: 1, hidden_units: 2}}}\n"
    ),
    # more keys
    "key of the wrong section": "behaviors: {A: {}}\nenv_settings: {time_scale: 5}\n",
    "key at the top level": "behaviors: {A: {}}\nnum_envs: 4\n",
    "misspelt in defaults": "default_settings: {max_step: 5}\nbehaviors: {A: {}}\n",
    "another program's key": (
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {clip_range: 0.2}}}\n"
    ),
    "flat settings below behaviours": """
        behaviors:
          A:
            trainer: ppo
            batch_size: 64
            hidden_units: 32
        """,
    # more values
    "seed beyond int32": "behaviors: {A: {}}\nenv_settings: {seed: 3000000000}\n",
    "seed below -1": "behaviors: {A: {}}\nenv_settings: {seed: -2}\n",
    "window beyond int32": "behaviors: {A: {}}\nengine_settings: {width: 1e10}\n",
    "time beyond float32": "behaviors: {A: {}}\nengine_settings: {time_scale: 1e39}\n",
    "endless wait": "behaviors: {A: {}}\nenv_settings: {timeout_wait: 1e300}\n",
    "clock that stands": "behaviors: {A: {}}\nengine_settings: {time_scale: 0}\n",
    "port beyond the last": "behaviors: {A: {}}\nenv_settings: {base_port: 65536}\n",
    "no areas": "behaviors: {A: {}}\nenv_settings: {num_areas: 0}\n",
    "empty path": "behaviors: {A: {}}\nenv_settings: {env_path: ''}\n",
    "list for a path": "behaviors: {A: {}}\nenv_settings: {env_path: [a, b]}\n",
    "mapping among arguments": (
        "behaviors: {A: {}}\nenv_settings: {env_path: g, env_args: [--level: 3]}\n"
    ),
    "empty item among arguments": """
        behaviors: {A: {}}
        env_settings:
          env_path: g
          env_args:
            - a
            -
        """,
    "list for constructor arguments": (
        "behaviors: {A: {}}\nenv_settings: {env_path: gym:A-v1, env_kwargs: [1]}\n"
    ),
    "date among constructor arguments": (
        "behaviors: {A: {}}\nenv_settings: {env_path: gym:A-v1, env_kwargs: {d: 2001-01-01}}\n"
    ),
    "wrappers without order": (
        "behaviors: {A: {}}\n"
        "env_settings: {env_path: gym:A-v1, env_wrappers: {ClipReward: {max_reward: 1}}}\n"
    ),
    "two wrappers in one item": """
        behaviors: {A: {}}
        env_settings:
          env_path: gym:A-v1
          env_wrappers:
            - FlattenObservation:
              ClipReward: {max_reward: 1}
        """,
    "arguments beside their wrapper": """
        behaviors: {A: {}}
        env_settings:
          env_path: gym:A-v1
          env_wrappers:
            - FrameStackObservation:
              stack_size: 4
        """,
    "number for a wrapper": (
        "behaviors: {A: {}}\nenv_settings: {env_path: gym:A-v1, env_wrappers: [4]}\n"
    ),
    "list for a wrapper's arguments": (
        "behaviors: {A: {}}\n"
        "env_settings: {env_path: gym:A-v1, env_wrappers: [FrameStackObservation: [4]]}\n"
    ),
    "date among a wrapper's arguments": (
        "behaviors: {A: {}}\n"
        "env_settings: {env_path: gym:A-v1, env_wrappers: [ClipReward: {max_reward: 2001-01-01}]}\n"
    ),
    "nameless wrapper": (
        "behaviors: {A: {}}\nenv_settings: {env_path: gym:A-v1, env_wrappers: ['']}\n"
    ),
    "wrappers for a build": (
        "behaviors: {A: {}}\n"
        "env_settings: {env_path: Walker.exe, env_wrappers: [FlattenObservation]}\n"
    ),
    "empty run id": "behaviors: {A: {}}\ncheckpoint_settings: {run_id: ''}\n",
    "run id from the root": "behaviors: {A: {}}\ncheckpoint_settings: {run_id: /tmp/x}\n",
    "source that leaves the results": (
        "behaviors: {A: {}}\ncheckpoint_settings: {initialize_from: a/../../b}\n"
    ),
    "no results folder": "behaviors: {A: {}}\ncheckpoint_settings: {results_dir: null}\n",
    "number for a resume": "behaviors: {A: {}}\ncheckpoint_settings: {resume: 1}\n",
    "device with a word": "behaviors: {A: {}}\ntorch_settings: {device: cuda:first}\n",
    "device is a number": "behaviors: {A: {}}\ntorch_settings: {device: 0}\n",
    "no threads": "behaviors: {A: {}}\ntorch_settings: {num_threads: 0}\n",
    "no layers": "behaviors: {A: {network_settings: {num_layers: 0}}}\n",
    "negative width": "behaviors: {A: {network_settings: {hidden_units: -128}}}\n",
    "word for a yes": "behaviors: {A: {network_settings: {normalize: perhaps}}}\n",
    "misspelt schedule": (
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {beta_schedule: constnat}}}\n"
    ),
    "several wrong hyperparameters": """
        behaviors:
          A:
            trainer_type: ppo
            hyperparameters:
              learning_rate: 0
              beta: -0.1
              epsilon: 1
              lambd: 95%
              num_epoch: 0
        """,
    "not a number": "behaviors: {A: {reward_signals: {extrinsic: {strength: .nan}}}}\n",
    "comma for a point": "behaviors: {A: {reward_signals: {extrinsic: {gamma: '0,99'}}}}\n",
    "unit behind a number": "behaviors: {A: {max_steps: 5M}}\n",
    "underscores in a text": "behaviors: {A: {max_steps: '5_0x'}}\n",
    "more even checkpoints than steps": (
        "behaviors: {A: {even_checkpoints: true, keep_checkpoints: 10, max_steps: 5}}\n"
    ),
    "null for a yes": "behaviors: {A: {}}\ndebug: null\nreproducible: 7\n",
    # more contradictions
    "repeatable and acting where the clock decides": """
        behaviors: {A: {}}
        env_settings:
          env_path: gym:CartPole-v1
          act_at: simulator
        reproducible: true
        """,
    "repeatable and saving where the clock decides": """
        behaviors: {A: {}}
        checkpoint_settings: {checkpoint_interval_s: 60}
        reproducible: true
        """,
    "acting in an unknown place": "behaviors: {A: {}}\nenv_settings: {act_at: simulators}\n",
    "ports that run out": """
        behaviors: {A: {}}
        env_settings: {env_path: Walker.exe, base_port: 65530, num_envs: 8}
        """,
    # more parameters
    "parameters are a list": "behaviors: {A: {}}\nenvironment_parameters: [mass]\n",
    "parameter is null": "behaviors: {A: {}}\nenvironment_parameters: {mass: }\n",
    "parameter is a list": "behaviors: {A: {}}\nenvironment_parameters: {mass: [1, 2]}\n",
    "parameter is nan": "behaviors: {A: {}}\nenvironment_parameters: {mass: .nan}\n",
    "parameter beyond float32": "behaviors: {A: {}}\nenvironment_parameters: {mass: 1e39}\n",
    "parameter outside ASCII": "behaviors: {A: {}}\nenvironment_parameters: {Höhe: 3}\n",
    "parameter is another mapping": (
        "behaviors: {A: {}}\nenvironment_parameters: {mass: {min: 1, max: 2}}\n"
    ),
    "misspelt sampler": """
        behaviors: {A: {}}
        environment_parameters:
          mass: {sampler_type: unifrom, sampler_parameters: {min_value: 1}}
        """,
    "sampler upside down": """
        behaviors: {A: {}}
        environment_parameters:
          mass: {sampler_type: uniform, sampler_parameters: {min_value: 2, max_value: 1}}
        """,
    "sampler with other parameters": """
        behaviors: {A: {}}
        environment_parameters:
          mass: {sampler_type: gaussian, sampler_parameters: {min_value: 2, st_dev: -1}}
        """,
    "sampler with parameters beside it": """
        behaviors: {A: {}}
        environment_parameters:
          mass: {sampler_type: uniform, sampler_parameters: {}, min_value: 2, sede: 1}
        """,
    "sampler without a type": (
        "behaviors: {A: {}}\nenvironment_parameters: {mass: {sampler_parameters: {value: 1}}}\n"
    ),
    "interval of three": """
        behaviors: {A: {}}
        environment_parameters:
          mass: {sampler_type: multirangeuniform, sampler_parameters: {intervals: [[1, 2, 3]]}}
        """,
    "intervals without brackets": """
        behaviors: {A: {}}
        environment_parameters:
          mass: {sampler_type: multirangeuniform, sampler_parameters: {intervals: [1, 2]}}
        """,
    "seed of a sampler": """
        behaviors: {A: {}}
        environment_parameters:
          mass: {sampler_type: uniform, sampler_parameters: {seed: 1.5}}
        """,
    "no lessons": "behaviors: {A: {}}\nenvironment_parameters: {h: {curriculum: []}}\n",
    "lesson is a number": "behaviors: {A: {}}\nenvironment_parameters: {h: {curriculum: [3]}}\n",
    "lesson without a name": (
        "behaviors: {A: {}}\nenvironment_parameters: {h: {curriculum: [{value: 3}]}}\n"
    ),
    "lesson with another key": """
        behaviors: {A: {}}
        environment_parameters: {h: {curriculum: [{name: a, value: 3, until: 5}], seed: 3}}
        """,
    "lesson with a wrong sampler": """
        behaviors: {A: {}}
        environment_parameters:
          h: {curriculum: [{name: a, value: {sampler_type: uniform, sampler_parameters: 3}}]}
        """,
    # more of older dialects
    "0.16 with an unknown trainer": "A: {trainer: offline_bc, batch_size: 64}\n",
    "0.16 with an odd memory": """
        A:
          trainer: ppo
          use_recurrent: true
          sequence_length: 64
          memory_size: 7
        """,
    "0.16 with a wrong behaviour": "default: {trainer: ppo, beta: 1}\nA: 5\n",
    "0.18 with a list": "behaviors: {A: {}}\nparameter_randomization: [mass]\n",
    "0.18 with a text": "behaviors: {A: {}}\ncurriculum: lessons.yaml\n",
    "0.18 without a sampler": (
        "behaviors: {A: {}}\nparameter_randomization: {mass: {min_value: 1}}\n"
    ),
    "0.18 with odd lessons": """
        behaviors: {A: {}}
        curriculum: {A: {thresholds: 3, parameters: {height: low}}}
        """,
    # more than a screen holds
    "hundreds of unknown keys": (
        "behaviors:\n  A:\n" + "".join(f"    key{i}: {i}\n" for i in range(300))
    ),
    "trackers as a list": "behaviors: {A: {}}\ntrackers: [tensorboard, mlflow]\n",
    "unknown tracker": "behaviors: {A: {}}\ntrackers: {mlflaw: {}}\n",
    "tracker as a switch": "behaviors: {A: {}}\ntrackers: {wandb: true}\n",
    "unknown mode of a tracker": "behaviors: {A: {}}\ntrackers: {wandb: {mode: disabled}}\n",
    "health without an endpoint": "behaviors: {A: {}}\ncontrol_settings: {health_port: 0}\n",
}
